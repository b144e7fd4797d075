"""The blocks of the bodies, except attention.

Every block has a ``reach``: a change of its input further away than this many low-resolution
pixels cannot change its output.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.network.layers import WideContext, trained_conv, zero_

#: Limit of the values that the gates scale. Photographs hardly ever reach it.
VALUE_LIMIT = 4.0

#: Widest half for which :func:`join_narrow_halves` pays.
NARROW = 16


class NanoBlock(nn.Module):
    """Linear MBConv with identity and one nonlinearity; deploys as a single 3x3 convolution.

    The nonlinearity is LeakyReLU because engines fuse it into the convolution, unlike PReLU. A
    block with a wide view first applies a row and then a column of taps, depthwise and dilated:
    most of what distant pixels can tell is about long lines and edges. Both start at zero, so
    weights trained without them can be loaded and trained further.

    Args:
        channels: width.
        expansion: hidden width of the trained form, as a multiple of ``channels``.
        line: number of taps in the row and in the column, odd; 0 for a plain 3x3 view.
        dilation: spacing of those taps.
    """

    def __init__(self, channels: int, expansion: int, *, line: int = 0, dilation: int = 1) -> None:
        super().__init__()
        sides = [(1, line), (line, 1)] if line else []
        lines = [WideContext(channels, side, dilation) for side in sides]
        for conv in lines:
            zero_(conv)
        self.context = nn.Sequential(*lines)
        self.conv = trained_conv(channels, channels, expansion=expansion, identity=True)
        self.reach = 1 + max((conv.reach for conv in lines), default=0)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        return F.leaky_relu(self.conv(self.context(x)), 0.1)


class GateBlock(nn.Module):
    """Gated feed-forward block of dense 3x3 convolutions with a wide view.

    A 3x3 convolution expands to two halves, value and gate. The gate gathers context through a
    dilated 7x7 depthwise convolution and is clipped to -1..1; the value is clipped to
    :data:`VALUE_LIMIT`. A second 3x3 projects their product. One block reaches
    ``2 + 3 * dilation`` pixels. Video codecs work in blocks of 8 to 64 pixels, so Stream uses
    dilations 1, 2 and 4 in two groups and reaches 54 pixels to each side. Sixteen blocks of Photo
    get as far without dilation.

    Because of the clips a block adds at most a constant to its input. Without them, six products
    in a row form a polynomial of degree 64: it turned noise into 1e5, raised the training loss to
    1e8, and lost precision in float16. Engines fuse the clips into the convolutions.

    Args:
        channels: width.
        hidden: width of each half.
        dilation: dilation of the context convolution.
        expansion: hidden width of the trained 3x3 convolutions, as a multiple of their input.
    """

    def __init__(self, channels: int, hidden: int, dilation: int, expansion: int) -> None:
        super().__init__()
        self.expand = trained_conv(channels, 2 * hidden, expansion=expansion)
        self.context = WideContext(hidden, (7, 7), dilation)
        self.project = trained_conv(hidden, channels, expansion=expansion, gain=0.1)
        self.reach = 2 + self.context.reach

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        value, gate = self.expand(x).chunk(2, dim=1)
        return x + self.project(_gated(value, self.context(gate)))

    def collapsed(self) -> DeployedGateBlock:
        """Return the deployed form."""
        return DeployedGateBlock(self)

    def take(self, deployed: DeployedGateBlock) -> None:
        """Become what collapses to ``deployed``."""
        self.expand.take(_stacked(deployed.value, deployed.gate))
        self.context.take(deployed.context)
        self.project.take(deployed.project)


class DeployedGateBlock(nn.Module):
    """The deployed form of :class:`GateBlock`: each half has its own convolution.

    Engines can then keep both halves in the memory layout of their convolutions. A split would
    make them rearrange the data.

    Args:
        block: the trained form.
    """

    @torch.no_grad()
    def __init__(self, block: GateBlock) -> None:
        super().__init__()
        expand = block.expand.collapsed()
        self.value, self.gate = _half(expand, 0), _half(expand, 1)
        self.context = block.context.collapsed()
        self.project = block.project.collapsed()
        self.reach = block.reach

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        return x + self.project(_gated(self.value(x), self.context(self.gate(x))))

    def joined(self) -> GateBlock:
        """Return the same block with one convolution for both halves, and no branches."""
        hidden, channels = self.value.out_channels, self.value.in_channels
        joined = GateBlock(channels, hidden, self.context.dilation[0], expansion=0)
        joined.take(self)
        joined.add_module("context", self.context)  # without the sum, which is in its kernel
        return joined


def join_narrow_halves(module: nn.Module) -> None:
    """Give the narrow gate blocks inside one convolution for both halves.

    ONNX Runtime's convolutions compute 32 outputs at a time on a CPU; the 16 of one half take
    longer than half of that. This saves more than taking the halves apart costs.
    """
    for name, child in module.named_children():
        if isinstance(child, DeployedGateBlock) and child.value.out_channels <= NARROW:
            setattr(module, name, child.joined())
        else:
            join_narrow_halves(child)


def _gated(value: Tensor, gate: Tensor) -> Tensor:
    return F.hardtanh(value, -VALUE_LIMIT, VALUE_LIMIT) * F.hardtanh(gate)


def _half(conv: nn.Conv2d, which: int) -> nn.Conv2d:
    """Return the convolution for the first (0) or second (1) half of the outputs of ``conv``."""
    half = copy.deepcopy(conv)
    half.out_channels //= 2
    half.weight = nn.Parameter(conv.weight.chunk(2)[which].clone())
    half.bias = nn.Parameter(cast(Tensor, conv.bias).chunk(2)[which].clone())
    return half


@torch.no_grad()
def _stacked(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Return the convolution with the outputs of both, the inverse of :func:`_half`."""
    both = copy.deepcopy(first)
    both.out_channels *= 2
    both.weight = nn.Parameter(torch.cat([first.weight, second.weight]))
    both.bias = nn.Parameter(torch.cat([cast(Tensor, first.bias), cast(Tensor, second.bias)]))
    return both


class HalfResolution(nn.Module):
    """A residual block that works at half resolution, for a quarter of the cost and twice the view.

    The residual connection keeps fine detail.

    Args:
        channels: width, a multiple of 4.
        body: module that maps ``(B, C, H/2, W/2)`` to the same shape.
        reach: reach of the body, in its own pixels.
    """

    def __init__(self, channels: int, body: nn.Module, reach: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels, 2, stride=2)
        self.body = body
        # Shuffling a quarter of the channels moves only a quarter of the memory.
        self.widen = nn.Conv2d(channels, channels, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)
        with torch.no_grad():
            self.up.weight.mul_(0.1)
        self.reach = 2 * reach + 1

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` of any size to the same shape."""
        height, width = x.shape[-2:]
        even = x
        # Crops to train on are even. A graph that is exported must not depend on the size.
        if not self.training or height % 2 or width % 2:
            # Written so that an exporter sees an even side without having to prove it.
            odd_h, odd_w = 2 * ((height + 1) // 2) - height, 2 * ((width + 1) // 2) - width
            even = F.pad(x, (0, odd_w, 0, odd_h), mode="replicate")
        y = self.widen(self.body(self.down(even)))
        y = F.pixel_shuffle(y, 2)[..., :height, :width]
        return x + self.up(F.leaky_relu(y, 0.1))
