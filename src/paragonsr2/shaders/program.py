"""A collapsed network as a list of passes: the common source of every shader.

Each pass computes one feature map from earlier ones. It is a sum of convolutions, an optional
LeakyReLU, and an optional sum with earlier maps, which is exactly what a shader does in one
dispatch. :meth:`Program.run` executes the passes in NumPy and defines what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from paragonsr2.arrays.pixels import FloatNCHW

#: Name of the map that holds the input picture.
INPUT = "input"

Border = Literal["zero", "edge"]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Convolution:
    """One convolution of a pass; it keeps the size of its input.

    Attributes:
        source: name of the map that it reads.
        weight: ``(outputs, inputs / groups, rows, columns)``, odd sides.
        groups: 1 for a dense convolution, otherwise as in PyTorch.
        dilation: spacing of the taps, down and across.
        border: what lies outside the picture: zeros or the nearest pixel.
    """

    source: str
    weight: Floats
    groups: int
    dilation: tuple[int, int]
    border: Border

    @property
    def reach(self) -> tuple[int, int]:
        """How many pixels it sees up and down, and to either side."""
        rows, columns = self.weight.shape[2:]
        return rows // 2 * self.dilation[0], columns // 2 * self.dilation[1]

    def run(self, x: Floats) -> Floats:
        """Convolve ``(C, H, W)`` to ``(outputs, H, W)``."""
        outputs, per_group, rows, columns = self.weight.shape
        down, across = self.reach
        mode = "constant" if self.border == "zero" else "edge"
        padded = np.pad(x, ((0, 0), (down, down), (across, across)), mode=mode)
        height, width = x.shape[1:]
        grouped = padded.reshape(self.groups, per_group, *padded.shape[1:])
        weight = self.weight.reshape(self.groups, outputs // self.groups, *self.weight.shape[1:])
        total = np.zeros((self.groups, outputs // self.groups, height, width), np.float32)
        for row in range(rows):
            for column in range(columns):
                top, left = row * self.dilation[0], column * self.dilation[1]
                tap = grouped[:, :, top : top + height, left : left + width]
                total += np.einsum("goi,gihw->gohw", weight[..., row, column], tap)
        return total.reshape(outputs, height, width)


@dataclass(frozen=True)
class Pass:
    """One feature map: ``leaky(sum of convolutions + bias) + added maps``.

    Attributes:
        name: of the map that it makes.
        convolutions: one or more, with equal numbers of outputs.
        bias: ``(outputs,)``.
        slope: of the LeakyReLU for negative values; 1 means none.
        added: names of earlier maps that are added at the end.
    """

    name: str
    convolutions: tuple[Convolution, ...]
    bias: Floats
    slope: float = 1.0
    added: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return len(self.bias)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all maps that it reads, each once."""
        names = [convolution.source for convolution in self.convolutions]
        return tuple(dict.fromkeys([*names, *self.added]))

    def run(self, maps: Mapping[str, Floats]) -> Floats:
        """Compute the map ``(outputs, H, W)`` from the earlier ``maps``."""
        total = np.zeros_like(maps[INPUT], shape=(self.channels, *maps[INPUT].shape[1:]))
        for convolution in self.convolutions:
            total += convolution.run(maps[convolution.source])
        total += self.bias[:, None, None]
        if self.slope != 1.0:
            total = np.where(total < 0, total * np.float32(self.slope), total)
        for name in self.added:
            total = total + maps[name]
        return total


@dataclass(frozen=True)
class Program:
    """A whole network.

    Attributes:
        passes: in order; the last makes ``3 * scale**2`` channels for PixelShuffle.
        scale: enlargement.
    """

    passes: tuple[Pass, ...]
    scale: int

    @property
    def reach(self) -> int:
        """Distance in input pixels beyond which the input cannot change the output."""
        reach = {INPUT: 0}
        for one in self.passes:
            found = [reach[name] for name in one.added]
            found += [reach[conv.source] + max(conv.reach) for conv in one.convolutions]
            reach[one.name] = max(found)
        return reach[self.passes[-1].name]

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(1, 3, H, W)``, nominally 0..1, to ``(1, 3, H * scale, W * scale)``."""
        maps = {INPUT: x[0]}
        for one in self.passes:
            maps[one.name] = one.run(maps)
        phases = maps[self.passes[-1].name]
        height, width = x.shape[2:]
        s = self.scale
        grid = phases.reshape(3, s, s, height, width).transpose(0, 3, 1, 4, 2)
        return np.ascontiguousarray(grid.reshape(1, 3, height * s, width * s))
