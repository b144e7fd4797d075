"""The ruler: PSNR and SSIM on luma by the standard protocol of the field, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.arrays.resize import bicubic
from paragonsr2.errors import ImageError

Luma = npt.NDArray[np.float64]

# ITU-R BT.601 weights of R, G, B in 0..255 for luma in 16..235.
LUMA_WEIGHTS = (65.481 / 255.0, 128.553 / 255.0, 24.966 / 255.0)


@dataclass(frozen=True)
class Score:
    """Similarity of two images on luma, without the shaved border.

    Attributes:
        psnr_y: peak signal-to-noise ratio, dB.
        ssim_y: structural similarity, -1..1.
    """

    psnr_y: float
    ssim_y: float


def decibel(value: float) -> str:
    """Format ``value`` with two decimals, rounded down."""
    # 32.98 is stored as 32.9799...; the small addend keeps it at 32.98.
    return f"{math.floor(value * 100 + 1e-6) / 100:.2f}"


def luma(rgb: Pixels8) -> Luma:
    """BT.601 luma of ``(H, W, 3)`` uint8, in 16..235, not rounded."""
    return rgb.astype(np.float64) @ np.array(LUMA_WEIGHTS) + 16.0


def crop_to_multiple(hr: Pixels8, scale: int) -> Pixels8:
    """Crop the right and bottom so that both sides are multiples of ``scale``."""
    height, width = (side - side % scale for side in hr.shape[:2])
    return hr[:height, :width]


def shrink(hr: Pixels8, scale: int) -> Pixels8:
    """Downscale ``hr``, whose sides are multiples of ``scale``, as the protocol prescribes."""
    return bicubic(hr, 1.0 / scale).astype(np.uint8, copy=False)


def psnr(a: Luma, b: Luma) -> float:
    """Peak signal-to-noise ratio in dB of signals with peak 255; infinite if they are equal."""
    mse = float(np.mean((a - b) ** 2))
    return math.inf if mse == 0.0 else 10.0 * math.log10(255.0**2 / mse)


def _blur(x: Luma) -> Luma:
    """Filter with an 11x11 Gaussian of sigma 1.5; keep only where it fits entirely."""
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window /= window.sum()
    for axis in (0, 1):
        length = x.shape[axis] - 10
        x = sum(  # pyright: ignore[reportAssignmentType]
            weight * x.take(range(k, k + length), axis=axis) for k, weight in enumerate(window)
        )
    return x


def ssim(a: Luma, b: Luma) -> float:
    """Mean structural similarity of signals with peak 255, at least 11 pixels a side.

    Source: Wang et al., "Image quality assessment", 2004.
    """
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return float(np.mean((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * structure))


def score(sr: Pixels8, hr: Pixels8, shave: int) -> Score:
    """Compare two ``(H, W, 3)`` uint8 images of the same size.

    Args:
        sr: upscaled image.
        hr: original.
        shave: pixels to leave out at each border.

    Raises:
        ImageError: the sizes differ, or fewer than 11 pixels a side are left.
    """
    if sr.shape != hr.shape:
        raise ImageError(
            f"cannot compare {sr.shape[1]}x{sr.shape[0]} with {hr.shape[1]}x{hr.shape[0]} pixels; "
            "the sizes differ"
        )
    if min(hr.shape[:2]) < 2 * shave + 11:
        raise ImageError(
            f"{hr.shape[1]}x{hr.shape[0]} pixels are too small for SSIM; without {shave} pixels at "
            "each border, both sides need at least 11"
        )
    a, b = (luma(x[shave:-shave, shave:-shave]) for x in (sr, hr))
    return Score(psnr(a, b), ssim(a, b))


def mean_score(scores: Sequence[Score]) -> Score:
    """Average the scores of a set of images."""
    return Score(
        float(np.mean([s.psnr_y for s in scores])), float(np.mean([s.ssim_y for s in scores]))
    )


def evaluate_image(upscale: Callable[[Pixels8], Pixels8], hr: Pixels8, scale: int) -> Score:
    """Downscale ``hr`` by the protocol, upscale it with ``upscale``, and compare.

    Args:
        upscale: maps ``(h, w, 3)`` uint8 to ``(h * scale, w * scale, 3)`` uint8.
        hr: ``(H, W, 3)`` uint8 of any size.
        scale: upscaling factor of ``upscale``.
    """
    hr = crop_to_multiple(hr, scale)
    return score(upscale(shrink(hr, scale)), hr, shave=scale)
