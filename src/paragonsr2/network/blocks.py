"""The blocks that bodies are made of, beside attention.

Every block says how far it looks: ``reach`` is the number of low-resolution pixels beyond
which a change of its input cannot change its output.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.network.layers import CollapsibleConv, WideContext, zero_

#: Largest magnitude of the values that gates scale; photographs reach it hardly ever.
VALUE_LIMIT = 4.0


class NanoBlock(nn.Module):
    """Linear MBConv with identity, then the only nonlinearity; one 3x3 convolution deployed.

    LeakyReLU because engines fuse it into the convolution; PReLU is not fused. A block that sees
    far has a row and then a column of taps before, depthwise and dilated: lines and edges, which
    go on for long, are most of what far pixels tell. Both start at zero, so that a network
    without them goes on from where it is.

    Args:
        channels: width.
        expansion: hidden width of the trained form as a multiple of ``channels``.
        line: number of taps in the row and in the column, odd; 0 for a block that sees 3x3.
        dilation: spacing of those taps.
    """

    def __init__(self, channels: int, expansion: int, *, line: int = 0, dilation: int = 1) -> None:
        super().__init__()
        sides = [(1, line), (line, 1)] if line else []
        lines = [WideContext(channels, side, dilation) for side in sides]
        for conv in lines:
            zero_(conv)
        self.context = nn.Sequential(*lines)
        self.conv = CollapsibleConv(channels, channels, expansion=expansion, identity=True)
        self.reach = 1 + max((conv.reach for conv in lines), default=0)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        return F.leaky_relu(self.conv(self.context(x)), 0.1)


class GateBlock(nn.Module):
    """Gated feed-forward block of dense 3x3 convolutions that sees far.

    3x3 expand to two halves; one half gathers context through a dilated 7x7 depthwise
    convolution and is clipped to -1..1, the other to what pictures reach; the product of the
    halves is projected by a 3x3. One block reaches ``2 + 3 * dilation`` pixels. Compression works
    in blocks of 8 to 64 pixels, so Stream has dilations 1, 2, 4 in two groups and reaches 54
    pixels to each side; sixteen blocks of Photo get as far without dilation.

    Clipped, a block adds no more than a constant to its input. Unclipped, six products in a row
    are a polynomial of degree 64, which made 1e5 of noise, threw the loss to 1e8 while training
    and was too coarse in float16. Engines fuse the clips into the convolutions.

    Args:
        channels: width.
        hidden: width of each half.
        dilation: of the context convolution.
        expansion: hidden width of the trained 3x3 convolutions, as a multiple of their input.
    """

    def __init__(self, channels: int, hidden: int, dilation: int, expansion: int) -> None:
        super().__init__()
        self.expand = CollapsibleConv(channels, 2 * hidden, expansion=expansion)
        self.context = WideContext(hidden, (7, 7), dilation)
        self.project = CollapsibleConv(hidden, channels, expansion=expansion, gain=0.1)
        self.reach = 2 + self.context.reach

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        value, gate = self.expand(x).chunk(2, dim=1)
        return x + self.project(_gated(value, self.context(gate)))

    def collapsed(self) -> DeployedGateBlock:
        """The form that is exported."""
        return DeployedGateBlock(self)


class DeployedGateBlock(nn.Module):
    """:class:`GateBlock` deployed: each half has a convolution of its own.

    Engines then keep both halves in the layout that they convolve in, where a split would have
    them laid out anew.

    Args:
        block: in trained form.
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


def _gated(value: Tensor, gate: Tensor) -> Tensor:
    return F.hardtanh(value, -VALUE_LIMIT, VALUE_LIMIT) * F.hardtanh(gate)


def _half(conv: nn.Conv2d, which: int) -> nn.Conv2d:
    """The convolution of the first or second half of the outputs of ``conv``."""
    half = copy.deepcopy(conv)
    half.out_channels //= 2
    half.weight = nn.Parameter(conv.weight.chunk(2)[which].clone())
    half.bias = nn.Parameter(cast(Tensor, conv.bias).chunk(2)[which].clone())
    return half


class HalfResolution(nn.Module):
    """A residual block that works at half resolution: a quarter of the work, twice the view.

    The fine detail stays in the residual.

    Args:
        channels: width, a multiple of 4.
        body: from ``(B, C, H/2, W/2)`` to the same shape.
        reach: of the body, in its own pixels.
    """

    def __init__(self, channels: int, body: nn.Module, reach: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels, 2, stride=2)
        self.body = body
        # Shuffling a quarter of the channels moves a quarter of the memory.
        self.widen = nn.Conv2d(channels, channels, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)
        with torch.no_grad():
            self.up.weight.mul_(0.1)
        self.reach = 2 * reach + 1

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``, any H and W, to the same shape."""
        height, width = x.shape[-2:]
        even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        y = self.widen(self.body(self.down(even)))
        y = F.pixel_shuffle(y, 2)[..., :height, :width]
        return x + self.up(F.leaky_relu(y, 0.1))
