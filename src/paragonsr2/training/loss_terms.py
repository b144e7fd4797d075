"""The generator's loss terms; :mod:`paragonsr2.training.losses` weights and adds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paragonsr2.errors import TrainingError
from paragonsr2.measure.quality import LUMA_WEIGHTS
from paragonsr2.training.loss_config import BlockTerm, GridTerm, PixelTerm


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32; float64 stays as it is."""
    return x if x.dtype is torch.float64 else x.float()


class PairLoss(nn.Module, ABC):
    """A distance between two batches of pictures, computed in float32 or float64."""

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Distance between ``(B, 3, H, W)`` pictures in 0..1: a scalar, 0 if they are equal."""
        with torch.autocast(sr.device.type, enabled=False):
            return self.distance(at_least_float32(sr), at_least_float32(hr))

    @abstractmethod
    def distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """:meth:`forward` on tensors that are precise enough."""


class PixelLoss(PairLoss):
    """Mean distance per pixel, on RGB and partly on luma.

    Luma matters most to PSNR-Y and to the eye, and photographs with half-resolution chroma teach
    little about chroma detail.

    ``psnr`` is the logarithm of each crop's squared error, so that all crops count alike, however
    detailed they are; the hardest crops dominate squared error and, to a lesser degree, L1.

    Args:
        config: kind of distance and share of luma.
    """

    #: Squared error (50 dB) below which ``psnr`` asks little more of a crop.
    GOOD = 1e-5

    weights: Tensor

    def __init__(self, config: PixelTerm) -> None:
        super().__init__()
        self.kind = config.kind
        self.share = config.luma
        weights = torch.tensor(LUMA_WEIGHTS).view(1, 3, 1, 1)
        # Normalised so that a grey error counts the same on luma as on RGB.
        self.register_buffer("weights", weights / weights.sum(), persistent=False)

    def _mean(self, error: Tensor) -> Tensor:
        if self.kind == "l1":
            return error.abs().mean()
        if self.kind == "charbonnier":
            # Minus its value at zero, so that equal pictures have distance 0.
            return (error.square() + 1e-6).sqrt().mean() - 1e-3
        if self.kind == "psnr":
            of_crops = error.square().flatten(1).mean(dim=1)
            return 0.1 * torch.log10(1.0 + of_crops / self.GOOD).mean()
        return error.square().mean()

    def distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """See the class."""
        error = sr - hr
        if self.share == 0.0:
            return self._mean(error)
        on_luma = self._mean((error * self.weights.to(error.dtype)).sum(dim=1))
        return (1.0 - self.share) * self._mean(error) + self.share * on_luma


class MsSsimLoss(PairLoss):
    """1 minus the multi-scale structural similarity of the three channels.

    Crops below 176 pixels have no room for all five scales: crops of 96 use four, crops of 48
    three; the weights of the remaining scales are normalised to sum 1.

    Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity", 2003.
    """

    SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    WINDOW, SIGMA = 11, 1.5
    #: (K1, K2) = (0.01, 0.03), squared, for pictures in 0..1.
    C1, C2 = 0.01**2, 0.03**2

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        offset = torch.arange(self.WINDOW) - self.WINDOW // 2
        kernel = torch.exp(-0.5 * (offset / self.SIGMA).square())
        self.register_buffer("kernel", kernel / kernel.sum(), persistent=False)

    def distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """See the class.

        Raises:
            TrainingError: the crops are smaller than the window.
        """
        side = min(sr.shape[-2:])
        if side < self.WINDOW:
            raise TrainingError(
                f"loss.ms_ssim needs crops of {self.WINDOW} high-resolution pixels, not {side}; "
                "raise data.patch or remove it"
            )
        scales = min(len(self.SCALE_WEIGHTS), (side // self.WINDOW).bit_length())
        weights = self.SCALE_WEIGHTS[:scales]
        product = torch.ones((), device=sr.device)
        for scale, weight in enumerate(weights):
            luminance, structure = self._similarity(sr, hr)
            last = scale == scales - 1
            similarity = (luminance * structure if last else structure).mean(dim=(2, 3))
            # Opposite pictures give a negative number, which has no root.
            product = product * similarity.clamp_min(1e-6) ** (weight / sum(weights))
            if not last:
                sr, hr = F.avg_pool2d(sr, 2), F.avg_pool2d(hr, 2)
        return 1.0 - product.mean()

    def _similarity(self, sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        """Similarity of luminance, and of contrast and structure, wherever the window fits."""
        mean_sr, mean_hr = self._blur(sr), self._blur(hr)
        product, squares = mean_sr * mean_hr, mean_sr.square() + mean_hr.square()
        covariance = self._blur(sr * hr) - product
        variances = self._blur(sr.square() + hr.square()) - squares
        luminance = (2 * product + self.C1) / (squares + self.C1)
        return luminance, (2 * covariance + self.C2) / (variances + self.C2)

    def _blur(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, 1, -1)
        rows = F.conv2d(x, kernel, groups=x.shape[1])
        return F.conv2d(rows, kernel.mT, groups=x.shape[1])


class FrequencyLoss(PairLoss):
    """L1 of the log-magnitudes of the spectra; the position of detail does not count.

    Magnitudes below :attr:`FLOOR`, those of white noise of that deviation, count as zero.
    """

    FLOOR = 0.01

    def distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """See the class."""
        return F.l1_loss(self._log_magnitude(sr), self._log_magnitude(hr))

    def _log_magnitude(self, x: Tensor) -> Tensor:
        spectrum = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))
        return 0.5 * torch.log(spectrum.square().sum(dim=-1) + self.FLOOR**2)


class GradientLoss(PairLoss):
    """L1 of the differences between neighbouring pixels, in both directions."""

    def distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """See the class."""
        error = sr - hr
        return 0.5 * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())


class GridLoss(PairLoss):
    """L1 of the local means of the pixels at each place of a grid.

    A pixel shuffle makes every pixel of a cell by a filter of its own, so that it can draw a
    regular pattern of dots, which losses on features or spectra may reward as texture. Real texture
    does not follow the grid: its means over :attr:`WINDOW` cells are alike for all places.

    Args:
        config: the period of the grid in pixels.
    """

    WINDOW = 8

    def __init__(self, config: GridTerm) -> None:
        super().__init__()
        self.period = config.period

    def distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """See the class."""
        height, width = (side - side % self.period for side in sr.shape[-2:])
        phases = F.pixel_unshuffle((sr - hr)[..., :height, :width], self.period)
        window = min(self.WINDOW, *phases.shape[-2:])
        means = F.avg_pool2d(phases, window, stride=max(1, window // 2)).unflatten(
            1, (sr.shape[1], self.period**2)
        )
        return (means - means.mean(dim=2, keepdim=True)).abs().mean()


class BlockLoss(PairLoss):
    """L1 of how much larger the steps between neighbours are at each place of a grid of blocks.

    Where a picture was stored in blocks, the steps at one place of the grid stand out, in both
    directions; in an original none does. Which place it is does not matter, so crops may begin
    anywhere.

    Args:
        config: the side of a block in high-resolution pixels.
    """

    def __init__(self, config: BlockTerm) -> None:
        super().__init__()
        self.period = config.period

    def distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """See the class.

        Raises:
            TrainingError: the crops are not larger than a block.
        """
        if min(sr.shape[-2:]) <= self.period:
            raise TrainingError(
                f"loss.blocks needs crops of more than {self.period} high-resolution pixels, "
                f"not {min(sr.shape[-2:])}; raise data.patch or remove it"
            )
        columns = (self._excess(sr) - self._excess(hr)).abs().mean()
        rows = (self._excess(sr.mT) - self._excess(hr.mT)).abs().mean()
        return 0.5 * (columns + rows)

    def _excess(self, x: Tensor) -> Tensor:
        """Mean step at each place of a row of the grid less that of all: ``(B, period)``."""
        steps = x.diff(dim=-1).abs().mean(dim=(1, 2))
        whole = steps.shape[-1] // self.period * self.period
        places = steps[:, :whole].unflatten(1, (-1, self.period)).mean(dim=1)
        return places - places.mean(dim=1, keepdim=True)


class ArtefactLoss(nn.Module):
    """L1 where an artefact is likely: locally discriminative learning.

    Source: Liang, Zeng, Zhang, "Details or Artifacts", CVPR 2022.
    """

    def forward(self, sr: Tensor, hr: Tensor, sr_ema: Tensor) -> Tensor:
        """L1 between ``sr`` and ``hr``, weighted by :func:`artefact_map`; a scalar.

        Args:
            sr: ``(B, 3, H, W)``, nominally 0..1.
            hr: the original.
            sr_ema: the averaged generator's output for the same input; gets no gradient.
        """
        with torch.autocast(sr.device.type, enabled=False):
            sr, hr, sr_ema = (at_least_float32(x) for x in (sr, hr, sr_ema))
            return (artefact_map(sr, hr, sr_ema) * (sr - hr).abs()).mean()


@torch.no_grad()
def artefact_map(sr: Tensor, hr: Tensor, sr_ema: Tensor, window: int = 7) -> Tensor:
    """How likely each pixel is an artefact.

    The error of an artefact varies from pixel to pixel, while the error of missing detail is
    even, so the local variance of the error tells them apart; the variance of the whole picture's
    error scales the map. Where the averaged generator, which is more stable, has a larger error
    than the live one, the live one is improving, and the map is zero.

    Args:
        sr: ``(B, 3, H, W)`` in 0..1, in float32 or float64.
        hr: the original.
        sr_ema: the averaged generator's output.
        window: side of the neighbourhood for the local variance, odd.

    Returns:
        ``(B, 1, H, W)``, 0 and up.
    """
    error = (hr - sr).abs().sum(dim=1, keepdim=True)
    error_ema = (hr - sr_ema).abs().sum(dim=1, keepdim=True)
    padded = F.pad(error, [window // 2] * 4, mode="replicate")
    mean = F.avg_pool2d(padded, window, stride=1)
    variance = F.avg_pool2d(padded.square(), window, stride=1) - mean.square()
    local = variance.clamp_min(0.0) * window**2 / (window**2 - 1)
    overall = error.var(dim=(1, 2, 3), keepdim=True) ** 0.2
    return torch.where(error < error_ema, 0.0, overall * local)


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean L1 between a discriminator's features of real and of generated pictures.

    Each feature map is divided by the root mean square of the real one, so that the layers count
    alike whatever their magnitudes. The real side is a target and gets no gradient.

    Args:
        real: features of HR, each ``(B, C, H, W)``.
        fake: features of SR, in the same order and shapes.

    Returns:
        A scalar, 0 for equal features.

    Raises:
        TrainingError: there are no features, or the two sides have different numbers of them.
    """
    if not real or len(real) != len(fake):
        raise TrainingError(f"cannot match {len(fake)} feature maps with {len(real)}")
    total = torch.zeros((), device=fake[0].device)
    for theirs, ours in zip(real, fake, strict=True):
        target = at_least_float32(theirs.detach())
        scale = target.square().mean().sqrt().clamp_min(1e-6)
        total = total + F.l1_loss(at_least_float32(ours), target) / scale
    return total / len(real)
