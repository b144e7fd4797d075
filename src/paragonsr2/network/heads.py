"""From the body to the picture: fusion, the gate map and the upsampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.network.layers import zero_


class Fuse(nn.Module):
    """A 1x1 convolution over the output of every group and the shallow features.

    Args:
        channels: width.
        groups: number of groups in the body.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels * (groups + 1), channels, 1)
        # Held here rather than in a child, so that states call them fuse.weight and fuse.bias.
        self.weight, self.bias = conv.weight, cast(nn.Parameter, conv.bias)

    def forward(self, kept: Sequence[Tensor], last: Tensor) -> Tensor:
        """Fuse features ``(B, C, H, W)``.

        Args:
            kept: the shallow features, then the features after every group but the last.
            last: what the last group adds to them.

        Returns:
            The same shape.
        """
        return kept[0] + F.conv2d(torch.cat([*kept, kept[-1] + last], 1), self.weight, self.bias)

    @torch.no_grad()
    def collapsed(self) -> FoldedFuse:
        """Return the deployed form, which has both sums inside the convolution."""
        weight = self.weight.clone()
        width = weight.shape[0]
        weight[:, -2 * width : -width] += weight[:, -width:]
        weight[:, :width] += torch.eye(width).to(weight)[:, :, None, None]
        return FoldedFuse(weight, self.bias.clone())

    @torch.no_grad()
    def take(self, deployed: FoldedFuse) -> None:
        """Become what collapses to ``deployed``."""
        width = self.weight.shape[0]
        self.weight.copy_(deployed.folded.weight)
        self.weight[:, :width] -= torch.eye(width).to(self.weight)[:, :, None, None]
        self.weight[:, -2 * width : -width] -= self.weight[:, -width:]
        self.bias.copy_(cast(Tensor, deployed.folded.bias))


class FoldedFuse(nn.Module):
    """The deployed form of :class:`Fuse`, with two fewer passes over the features.

    Its weights have their own name: the weights of one form have the right shapes for the other
    but would give a different picture.

    Args:
        weight: ``(C, C * (groups + 1), 1, 1)``.
        bias: ``(C,)``.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.folded = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
        self.folded.weight = nn.Parameter(weight)
        self.folded.bias = nn.Parameter(bias)

    def forward(self, kept: Sequence[Tensor], last: Tensor) -> Tensor:
        """As :meth:`Fuse.forward`."""
        return self.folded(torch.cat([*kept, last], dim=1))


class ContentAwareDetailProcessor(nn.Module):
    """Gate map: decides from the deep features how much detail each place gets.

    It suppresses detail in flat areas (0.5) and boosts it in texture (1.5); it starts at the
    neutral 1. It cannot reach zero, because a closed gate would pass no gradient and never open
    again.

    Args:
        channels: width of the features.
    """

    reach = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 4)
        self.narrow = nn.Conv2d(channels, hidden, 3, padding=1)
        self.context = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden)
        self.mix = nn.Conv2d(hidden, hidden, 1)
        self.map = nn.Conv2d(hidden, 1, 3, padding=1)
        zero_(self.map)

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, C, H, W)`` to a gate ``(B, 1, H, W)`` in 0.5..1.5."""
        x = F.leaky_relu(self.narrow(features), 0.1)
        x = F.leaky_relu(self.mix(self.context(x)), 0.1)
        return 0.5 + torch.sigmoid(self.map(x))


def icnr_(conv: nn.Conv2d, scale: int) -> None:
    """Initialise all sub-pixels before a PixelShuffle alike, which avoids checkerboards.

    Source: Aitken et al., "Checkerboard artifact free sub-pixel convolution", 2017.
    """
    seed = torch.empty(conv.weight.shape[0] // scale**2, *conv.weight.shape[1:])
    nn.init.kaiming_normal_(seed, a=0.1, nonlinearity="leaky_relu")
    with torch.no_grad():
        conv.weight.copy_(seed.repeat_interleave(scale**2, dim=0))
        if conv.bias is not None:
            conv.bias.zero_()


class Upsampler(nn.Module):
    """Turn features into detail by PixelShuffle, directly or in x2 stages with convolutions.

    The last convolution starts at zero, so an untrained network equals its base path. The caller
    does the last shuffle, by ``last_scale``, and may add the base before it.

    Args:
        channels: width of the features.
        scale: 2, 3, 4 or 8.
        staged: reach x4 and x8 in steps of x2.
    """

    def __init__(self, channels: int, scale: int, *, staged: bool) -> None:
        super().__init__()
        stages = scale.bit_length() - 2 if staged and scale in (4, 8) else 0
        self.last_scale = 2 if stages else scale
        width = channels
        convs: list[nn.Conv2d] = []
        for _ in range(stages):
            convs.append(nn.Conv2d(width, 4 * (channels // 2), 3, padding=1))
            icnr_(convs[-1], 2)
            width = channels // 2
        self.stages = nn.ModuleList(convs)
        self.last = nn.Conv2d(width, 3 * self.last_scale**2, 3, padding=1)
        zero_(self.last)
        # The convolutions reach 1, 1/2, 1/4, ... low-resolution pixels: less than two in all.
        self.reach = 2 if stages else 1

    def forward(self, features: Tensor) -> Tensor:
        """Map features to detail before its last shuffle, ``(B, 3 * last_scale**2, H', W')``."""
        x = features
        for conv in self.stages:
            x = F.leaky_relu(F.pixel_shuffle(cast(nn.Conv2d, conv)(x), 2), 0.1)
        return self.last(x)
