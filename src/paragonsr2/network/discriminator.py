"""MUNet: a U-Net discriminator that judges a picture in four ways at once.

::

                     ┌─ decoder with skips ─────────────── spatial ─┐
    (B,3,H,W) ─ encoder ─ bottleneck ─ nearest + conv ──── patch ───┤
            ├─ luma differences ─ convs ────────────────── gradient ┼─ softmax per pixel ─ logits
            └─ centred log-magnitude FFT ─ convs ─ mean ── frequency┘              (B,1,H,W)

Convolutions run channels-last and, under autocast, in bfloat16; the spectrum in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from paragonsr2.arrays.kernels import polyphase_taps
from paragonsr2.errors import OptionError

BRANCHES = ("spatial", "gradient", "frequency", "patch")

#: Smallest side of a picture that MUNet accepts.
MIN_SIDE = 32

#: Power of a frequency below which the frequency branch hears next to nothing: that of noise with a
#: standard deviation of 2.5 of 255.
SILENCE = 1e-4
#: Factor of the logarithm; the branch's input then moves at most 5 times as much as the picture.
LOUDNESS = 0.1

# BT.601, as in the quality measure, but summing to 1.
_LUMA = (0.299, 0.587, 0.114)


class Judgement(NamedTuple):
    """MUNet's verdict on a batch of pictures.

    Attributes:
        logits: ``(B, 1, H, W)``, high where the picture looks real.
        fusion: ``(B, branches, H, W)``, the weight of each branch; the weights of a pixel sum to 1.
        features: features for feature matching: the encoder's levels, then each branch in its own
            size (full, half, or one pixel for the whole picture).
    """

    logits: Tensor
    fusion: Tensor
    features: list[Tensor]


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Return a spectrally normalised convolution that keeps the size, or halves it at stride 2."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=(kernel - 1) // 2)
    spectral_norm(conv)
    return conv


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _luma(x: Tensor) -> Tensor:
    """Convert RGB ``(B, 3, H, W)`` to luma ``(B, 1, H, W)``."""
    weights = torch.tensor(_LUMA, device=x.device, dtype=x.dtype).view(1, 3, 1, 1)
    return (x * weights).sum(dim=1, keepdim=True)


class MagicUp(nn.Module):
    """Enlarge twice by the fixed Magic Kernel, on any number of channels.

    Each direction is a product with a matrix: faster than a grouped convolution with a
    PixelShuffle, most of all on a CPU.
    """

    taps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(
            "taps", torch.from_numpy(polyphase_taps(2, 0.0)).float(), persistent=False
        )

    def _matrix(self, length: int, like: Tensor) -> Tensor:
        """The enlargement of a line: ``(2 * length, length)``, with its ends repeated."""
        reach = self.taps.shape[1] // 2
        at = torch.arange(length, device=like.device)
        sources = at[:, None] + torch.arange(-reach, reach + 1, device=like.device)
        phases_LPN = torch.zeros(length, 2, length, device=like.device)
        for phase, taps in enumerate(self.taps):
            phases_LPN[:, phase].scatter_add_(
                1, sources.clamp(0, length - 1), taps.expand(length, -1)
            )
        return phases_LPN.flatten(0, 1).to(like.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge ``(B, C, H, W)`` to ``(B, C, 2 * H, 2 * W)``."""
        b, c, h, w = x.shape
        x_BHE = x.permute(0, 2, 3, 1).reshape(b, h, w * c)  # channels-last, as its gradient stays
        down, across = self._matrix(h, x), self._matrix(w, x)
        x_BWE = (down @ x_BHE).view(b, 2 * h, w, c).transpose(1, 2).reshape(b, w, 2 * h * c)
        out = (across @ x_BWE).view(b, 2 * w, 2 * h, c).permute(0, 3, 2, 1)
        return out.contiguous(memory_format=torch.channels_last)


class SelfAttention(nn.Module):
    """Attention between all pixels of the bottleneck, as a residual that starts at zero.

    Args:
        channels: width; about one head per 32 channels, as many as divide it.
    Source: Zhang et al., "Self-Attention Generative Adversarial Networks", 2019.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        most = max(1, channels // 32)
        self.heads = next(heads for heads in range(most, 0, -1) if channels % heads == 0)
        self.qkv = _conv(channels, 3 * channels, 1)
        self.project = _conv(channels, channels, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        b, c, h, w = x.shape
        q_BNTD, k_BNTD, v_BNTD = (
            self.qkv(x).view(b, 3, self.heads, c // self.heads, h * w).transpose(3, 4).unbind(1)
        )
        if q_BNTD.is_cpu and q_BNTD.dtype is torch.bfloat16:
            # There the fused attention takes twice as long: its gradient is no matrix product.
            shares_BNTT = (q_BNTD * q_BNTD.shape[-1] ** -0.5 @ k_BNTD.mT).softmax(dim=-1)
            out_BNTD = shares_BNTT.to(v_BNTD.dtype) @ v_BNTD
        else:
            out_BNTD = F.scaled_dot_product_attention(q_BNTD, k_BNTD, v_BNTD)
        out = out_BNTD.transpose(2, 3).reshape(b, c, h, w)
        return x + self.gain * self.project(out)


class Encoder(nn.Module):
    """Levels that halve the size, down to a bottleneck with self-attention.

    Args:
        widths: channels of each level; the last is the bottleneck.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = _conv(3, widths[0])
        self.downs = nn.ModuleList(_conv(high, low, 4, 2) for high, low in pairwise(widths))
        self.bottleneck = _conv(widths[-1], widths[-1])
        self.attention = SelfAttention(widths[-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of ``(B, 3, H, W)``, from full size down to the bottleneck."""
        levels = [_act(self.first(x))]
        for down in self.downs:
            levels.append(_act(down(levels[-1])))
        levels[-1] = self.attention(_act(self.bottleneck(levels[-1])))
        return levels


class Decoder(nn.Module):
    """The way back up: Magic Kernel, convolution, and the encoder's features of that size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.up = MagicUp()
        pairs = list(pairwise(widths))
        self.narrow = nn.ModuleList(_conv(low, high, 1) for high, low in reversed(pairs))
        self.mix = nn.ModuleList(_conv(high, high) for high, _ in reversed(pairs))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Features ``(B, widths[0], H, W)`` from the encoder's ``levels``."""
        x = levels[-1]
        for narrow, mix, skip in zip(self.narrow, self.mix, reversed(levels[:-1]), strict=True):
            # The 1x1 commutes with the enlargement and costs a quarter before it.
            x = _act(mix(self.up(narrow(x)) + skip))
        return x


class GradientBranch(nn.Module):
    """Reads luma differences, which show how sharp and how clean edges are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(2, channels, 4, 2)
        self.second = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, C, H / 2, W / 2)`` of pictures ``(B, 3, H, W)`` with even sides."""
        luma = F.pad(_luma(x), (0, 1, 0, 1), mode="replicate")
        across = luma[..., :-1, 1:] - luma[..., :-1, :-1]
        down = luma[..., 1:, :-1] - luma[..., :-1, :-1]
        edges = _act(self.first(torch.cat([across, down], dim=1)))
        return _act(self.second(edges))


class FrequencyBranch(nn.Module):
    """Reads the centred log-magnitude spectrum, which shows missing detail and regular patterns.

    It computes in float32. A logarithm is endlessly steep where there is nothing, and this is the
    only branch that is not bounded by spectral norms; so :data:`SILENCE` is the least that it
    hears, and :data:`LOUDNESS` brings it near the others.

    A frequency has no place in the picture, so the branch gives one answer for the whole of it.
    Convolutions do not know where they are, so a second channel holds the distance of each
    frequency from zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(2, channels, 4, 2)
        self.second = _conv(channels, channels, 4, 2)
        self.last = _conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, C, 1, 1)`` of pictures ``(B, 3, H, W)``."""
        with torch.autocast(x.device.type, enabled=False):
            luma = _luma(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x)
            # The mean is not detail, and would be the largest number of all.
            spectrum = torch.fft.fft2(luma - luma.mean(dim=(2, 3), keepdim=True), norm="ortho")
            # The logarithm of the power, because a magnitude of zero has no derivative.
            power = spectrum.real.square() + spectrum.imag.square()
            loudness = LOUDNESS * 0.5 * torch.log(power / SILENCE + 1)
            magnitude = torch.fft.fftshift(loudness, dim=(2, 3))
        height, width = x.shape[-2:]
        down = torch.linspace(-1, 1, height, device=x.device, dtype=magnitude.dtype)
        across = torch.linspace(-1, 1, width, device=x.device, dtype=magnitude.dtype)
        radius = torch.hypot(down[:, None], across[None, :]).expand_as(magnitude)
        features = _act(self.first(torch.cat([magnitude, radius], dim=1)))
        features = _act(self.second(features))
        return _act(self.last(features.mean(dim=(2, 3), keepdim=True)))


class PatchBranch(nn.Module):
    """Brings the bottleneck's verdict on each large patch up, nearly to every pixel."""

    def __init__(self, wide: int, channels: int) -> None:
        super().__init__()
        self.narrow = _conv(wide, channels, 1)
        self.smooth = _conv(channels, channels)

    def forward(self, bottleneck: Tensor, size: tuple[int, int]) -> Tensor:
        """Features ``(B, C, *size)``."""
        x = F.interpolate(_act(self.narrow(bottleneck)), size=size, mode="nearest")
        return _act(self.smooth(x))


class MUNet(nn.Module):
    """The discriminator: one logit per pixel, from up to four branches.

    Args:
        num_feat: width of the branches.
        ch_mult: width of each level of the U-Net as a multiple of ``num_feat``.
        branches: a choice of :data:`BRANCHES`; ``("spatial",)`` is a plain U-Net discriminator.

    Raises:
        OptionError: an unknown branch, none at all, or fewer than two levels.
    """

    def __init__(
        self,
        num_feat: int = 64,
        ch_mult: Sequence[int] = (1, 2, 4, 8),
        branches: Sequence[str] = BRANCHES,
    ) -> None:
        super().__init__()
        unknown = sorted(set(branches) - set(BRANCHES))
        if unknown or not branches:
            raise OptionError(
                f"branches are {', '.join(branches) or 'none'}; take some of {', '.join(BRANCHES)}"
            )
        if len(ch_mult) < 2 or num_feat < 1 or min(ch_mult) < 1:
            raise OptionError(f"num_feat {num_feat}, ch_mult {tuple(ch_mult)} are no U-Net")
        self.branches = tuple(name for name in BRANCHES if name in branches)
        widths = [num_feat * multiple for multiple in ch_mult]
        self.multiple = 2 ** (len(widths) - 1)
        deep = "spatial" in branches or "patch" in branches
        self.encoder = Encoder(widths) if deep else None
        self.spatial = Decoder(widths) if "spatial" in branches else None
        self.gradient = GradientBranch(widths[0]) if "gradient" in branches else None
        self.frequency = FrequencyBranch(widths[0]) if "frequency" in branches else None
        self.patch = PatchBranch(widths[-1], widths[0]) if "patch" in branches else None
        self.up = MagicUp()
        count = len(self.branches)
        self.fuse = _conv(count * widths[0], count, 1) if count > 1 else None
        self.judge = _conv(widths[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Judge pictures.

        Args:
            x: RGB ``(B, 3, H, W)``, nominally 0..1; H and W from 32.

        Returns:
            Logits ``(B, 1, H, W)``.

        Raises:
            OptionError: a side is shorter than 32.
        """
        return self.inspect(x).logits

    def inspect(self, x: Tensor) -> Judgement:
        """Judge pictures as :meth:`forward` does, and return what the verdict rests on."""
        height, width = x.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise OptionError(
                f"MUNet judges pictures from {MIN_SIDE}x{MIN_SIDE}, not {width}x{height}; "
                "raise data.patch"
            )
        # The spectrum is of the picture itself; the other branches need sides that can be halved.
        behind = (0, -width % self.multiple, 0, -height % self.multiple)
        padded = F.pad(x, behind, mode="replicate").contiguous(memory_format=torch.channels_last)
        half = (padded.shape[-2] // 2, padded.shape[-1] // 2)
        levels = self.encoder(padded) if self.encoder is not None else []
        found: list[Tensor] = []
        if self.spatial is not None:
            found.append(self.spatial(levels))
        if self.gradient is not None:
            found.append(self.gradient(padded))
        if self.frequency is not None:
            found.append(self.frequency(x))
        if self.patch is not None:
            found.append(self.patch(levels[-1], half))
        logits, fusion = self._fused(found, half)
        return Judgement(logits[..., :height, :width], fusion[..., :height, :width], levels + found)

    def _fused(self, found: list[Tensor], half: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Logits and shares from the features of the branches.

        The verdict on the branches' weighted sum is the weighted sum of the verdicts on each.
        Verdicts and the softmax's inputs are few channels, so it is them that are brought to full
        size, not the features.
        """
        count = len(found)
        kernels, bias = [self.judge.weight] * count, self.judge.bias
        if self.fuse is not None:
            parts = self.fuse.weight.chunk(count, dim=1)
            kernels = [torch.cat(pair) for pair in zip(kernels, parts, strict=True)]
        said: list[Tensor] = []
        for features, kernel in zip(found, kernels, strict=True):
            votes = F.conv2d(features, kernel)
            votes = self.up(votes) if votes.shape[-2:] == half else votes
            said.append(votes.expand(-1, -1, 2 * half[0], 2 * half[1]))
        votes = torch.cat([one[:, :1] for one in said], dim=1)
        assert bias is not None
        if self.fuse is None:
            return votes + bias, torch.ones_like(votes)
        assert self.fuse.bias is not None
        asked = torch.stack([one[:, 1:] for one in said]).sum(dim=0)
        fusion = (asked + self.fuse.bias.view(-1, 1, 1)).softmax(dim=1)
        return (fusion * votes).sum(dim=1, keepdim=True) + bias, fusion
