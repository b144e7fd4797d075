"""The three kinds of block that bodies are made of.

Every block says how far it looks: ``reach`` is the number of low-resolution pixels beyond
which a change of its input cannot change its output.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.network.attention import WindowAttention
from paragonsr2.network.layers import (
    ChannelGate,
    CollapsibleConv,
    LayerScale,
    RMSNorm,
    WideContext,
    zero_,
)

#: Largest magnitude of the values that Stream's gates scale; photographs reach it hardly ever.
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
    """Gated feed-forward block that sees far, because compression works in blocks of 8 to 64.

    3x3 expand to two halves; one half gathers context through a dilated 7x7 depthwise
    convolution and is clipped to -1..1, the other to what pictures reach; the product of the
    halves is projected by a 3x3. One block reaches ``2 + 3 * dilation`` pixels; with dilations
    1, 2, 4 in two groups the body of Stream reaches 54 pixels to each side.

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


class ScaleMix(nn.Module):
    """Depthwise context at several scales: identity, 3x3, 1x11, 11x1, each on its channels.

    Source: Yu et al., "InceptionNeXt", 2024.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        part = channels // 4
        self.part = part
        self.square = nn.Conv2d(part, part, 3, padding=1, groups=part)
        self.row = nn.Conv2d(part, part, (1, 11), padding=(0, 5), groups=part)
        self.column = nn.Conv2d(part, part, (11, 1), padding=(5, 0), groups=part)
        self.project = nn.Conv2d(channels, channels, 1)
        self.reach = 5

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        same, square, row, column = x.split(self.part, dim=1)
        mixed = torch.cat([same, self.square(square), self.row(row), self.column(column)], dim=1)
        return self.project(mixed)


class GatedFFN(nn.Module):
    """Gated convolutional feed-forward: expand, 3x3 depthwise, multiply halves, project.

    Args:
        channels: width.
        hidden: width of each half.
        gate_window: window over which channel gating pools; 0 pools globally.
    """

    def __init__(self, channels: int, hidden: int, gate_window: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 2 * hidden, 1)
        self.context = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.channel_gate = ChannelGate(hidden, gate_window)
        self.project = nn.Conv2d(hidden, channels, 1)
        self.reach = 1 + self.channel_gate.reach

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        value, gate = self.context(self.expand(x)).chunk(2, dim=1)
        return self.project(self.channel_gate(F.silu(gate) * value))


class ParagonBlock(nn.Module):
    """Context at several scales, window attention, gated feed-forward; each a scaled residual.

    Args:
        channels: width.
        hidden: width of the feed-forward halves.
        window: side of the attention window.
        shifted: shift the windows by half their side.
        global_pool: channel gating pools the whole image instead of one window.
    """

    def __init__(
        self, channels: int, hidden: int, window: int, *, shifted: bool, global_pool: bool
    ) -> None:
        super().__init__()
        self.context = nn.Sequential(RMSNorm(channels), ScaleMix(channels), LayerScale(channels))
        attention = WindowAttention(channels, window, window // 2 if shifted else 0)
        self.attention = nn.Sequential(RMSNorm(channels), attention, LayerScale(channels))
        ffn = GatedFFN(channels, hidden, 0 if global_pool else window)
        self.ffn = nn.Sequential(RMSNorm(channels), ffn, LayerScale(channels))
        self.reach = 5 + attention.reach + ffn.reach

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        x = x + self.context(x)
        x = x + self.attention(x)
        return x + self.ffn(x)
