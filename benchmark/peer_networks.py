"""Other people's small networks at x2, implemented from their published descriptions.

Only networks that spandrel cannot build are here. Their weights are random, which takes the same
time as trained ones. Before a network is timed, its size is checked against the published one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SCALE = 2


def _conv(inputs: int, outputs: int, side: int = 3, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=bias)


class ESPCN(nn.Module):
    """Three convolutions on luma, then PixelShuffle.

    Source: Shi et al., "Real-time single image and video super-resolution using an efficient
    sub-pixel convolutional neural network", 2016.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(1, 64, 5), nn.Tanh(), _conv(64, 32), nn.Tanh(), _conv(32, _SCALE**2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map luma ``(B, 1, H, W)`` to ``(B, 1, 2H, 2W)``."""
        return F.pixel_shuffle(self.body(x), _SCALE)


class FSRCNN(nn.Module):
    """Luma: 56 features, shrunk to 12, four 3x3 mappings, expanded, one 9x9 deconvolution.

    Source: Dong et al., "Accelerating the super-resolution convolutional neural network", 2016.
    """

    def __init__(self) -> None:
        super().__init__()
        wide, narrow = 56, 12
        layers: list[nn.Module] = [_conv(1, wide, 5), nn.PReLU(wide)]
        layers += [_conv(wide, narrow, 1), nn.PReLU(narrow)]
        for _ in range(4):
            layers += [_conv(narrow, narrow), nn.PReLU(narrow)]
        layers += [_conv(narrow, wide, 1), nn.PReLU(wide)]
        layers += [nn.ConvTranspose2d(wide, 1, 9, _SCALE, padding=4, output_padding=1)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map luma ``(B, 1, H, W)`` to ``(B, 1, 2H, 2W)``."""
        return self.body(x)


class VDSR(nn.Module):
    """Twenty convolutions of 64 channels on bicubically upscaled luma.

    Source: Kim et al., "Accurate image super-resolution using very deep convolutional
    networks", 2016.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(1, 64, bias=False), nn.ReLU()]
        for _ in range(18):
            layers += [_conv(64, 64, bias=False), nn.ReLU()]
        self.body = nn.Sequential(*layers, _conv(64, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map luma ``(B, 1, H, W)`` to ``(B, 1, 2H, 2W)``."""
        large = F.interpolate(x, scale_factor=float(_SCALE), mode="bicubic")
        return large + self.body(large)


class _ContrastAttention(nn.Module):
    """Contrast-aware channel attention: weights channels by their standard deviation plus mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 16
        self.squeeze, self.excite = _conv(channels, narrow, 1), _conv(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        contrast = (x - mean).square().mean((2, 3), keepdim=True).sqrt() + mean
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(contrast))))


class _Distillation(nn.Module):
    """After each of three convolutions, keep some channels and refine the rest; then fuse all."""

    def __init__(self, channels: int, kept: int, *, attention: bool) -> None:
        super().__init__()
        self.kept, rest = kept, channels - kept
        self.convs = nn.ModuleList(
            [_conv(channels, channels), _conv(rest, channels), _conv(rest, channels)]
        )
        self.last = _conv(rest, kept)
        self.attention = _ContrastAttention(channels) if attention else nn.Identity()
        self.fuse = _conv(4 * kept, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts: list[Tensor] = []
        rest = x
        for conv in self.convs:
            out = F.leaky_relu(conv(rest), 0.05)
            parts.append(out[:, : self.kept])
            rest = out[:, self.kept :]
        return x + self.fuse(self.attention(torch.cat([*parts, self.last(rest)], dim=1)))


class IMDN(nn.Module):
    """Six information multi-distillation blocks of 64 channels, all of them fused.

    Source: Hui et al., "Lightweight image super-resolution with information multi-distillation
    network", 2019.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = _conv(3, 64)
        self.blocks = nn.ModuleList([_Distillation(64, 16, attention=True) for _ in range(6)])
        self.gather = _conv(6 * 64, 64, 1)
        self.after, self.last = _conv(64, 64), _conv(64, 3 * _SCALE**2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, 3, 2H, 2W)``."""
        first = features = self.first(x)
        outputs: list[Tensor] = []
        for block in self.blocks:
            features = block(features)
            outputs.append(features)
        fused = F.leaky_relu(self.gather(torch.cat(outputs, dim=1)), 0.05)
        return F.pixel_shuffle(self.last(self.after(fused) + first), _SCALE)


class RealtimeIMDN(nn.Module):
    """IMDN_RTC: five distillation blocks of 12 channels without attention, one after another.

    Source: as :class:`IMDN`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = _conv(3, 12)
        self.blocks = nn.Sequential(*[_Distillation(12, 3, attention=False) for _ in range(5)])
        self.after, self.last = _conv(12, 12, 1), _conv(12, 3 * _SCALE**2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, 3, 2H, 2W)``."""
        first = self.first(x)
        return F.pixel_shuffle(self.last(self.after(self.blocks(first)) + first), _SCALE)


class _SpatialAttention(nn.Module):
    """Scale pixels by a map that is computed on a coarse grid of 16 channels."""

    def __init__(self, channels: int, narrow: int = 16) -> None:
        super().__init__()
        self.enter, self.direct = _conv(channels, narrow, 1), _conv(narrow, narrow, 1)
        self.stride = nn.Conv2d(narrow, narrow, 3, stride=2)
        self.coarse, self.leave = _conv(narrow, narrow), _conv(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        # Narrower than any real picture: then the 7x7 pool would not fit.
        coarse = self.stride(entered)
        coarse = self.coarse(F.max_pool2d(coarse, min(7, *coarse.shape[-2:]), 3))
        coarse = F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.leave(coarse + self.direct(entered)))


class _LocalFeatures(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([_conv(channels, channels) for _ in range(3)])
        self.fuse, self.attention = _conv(channels, channels, 1), _SpatialAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for conv in self.convs:
            out = F.leaky_relu(conv(out), 0.05)
        return self.attention(self.fuse(out + x))


class RLFN(nn.Module):
    """Six residual blocks of 52 channels with spatial attention.

    Source: Kong et al., "Residual local feature network for efficient super-resolution", 2022.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = _conv(3, 52)
        self.blocks = nn.Sequential(*[_LocalFeatures(52) for _ in range(6)])
        self.after, self.last = _conv(52, 52), _conv(52, 3 * _SCALE**2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, 3, 2H, 2W)``."""
        first = self.first(x)
        return F.pixel_shuffle(self.last(self.after(self.blocks(first)) + first), _SCALE)


class _SelfCalibrated(nn.Module):
    """Two halves: one gated by pixel attention, one plain; joined and added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter_a, self.enter_b = (_conv(channels, half, 1, bias=False) for _ in range(2))
        self.plain = _conv(half, half, bias=False)
        self.gate = _conv(half, half, 1)
        self.value, self.refine = (_conv(half, half, bias=False) for _ in range(2))
        self.join = _conv(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = F.leaky_relu(self.plain(F.leaky_relu(self.enter_a(x), 0.2)), 0.2)
        b = F.leaky_relu(self.enter_b(x), 0.2)
        b = F.leaky_relu(self.refine(self.value(b) * torch.sigmoid(self.gate(b))), 0.2)
        return x + self.join(torch.cat([a, b], dim=1))


class PAN(nn.Module):
    """Sixteen self-calibrated blocks of 40 channels; pixel attention after nearest upscaling.

    Source: Zhao et al., "Efficient image super-resolution using pixel attention", 2020.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = _conv(3, 40)
        self.blocks = nn.Sequential(*[_SelfCalibrated(40) for _ in range(16)])
        self.after = _conv(40, 40)
        self.up, self.gate = _conv(40, 24), _conv(24, 24, 1)
        self.refine, self.last = _conv(24, 24), _conv(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, 3, 2H, 2W)``."""
        factor = float(_SCALE)
        first = self.first(x)
        features = first + self.after(self.blocks(first))
        large = self.up(F.interpolate(features, scale_factor=factor, mode="nearest"))
        large = F.leaky_relu(large * torch.sigmoid(self.gate(large)), 0.2)
        large = self.last(F.leaky_relu(self.refine(large), 0.2))
        return large + F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
