"""Distances between an image and its original that PSNR does not see; needs no downloads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.measure.quality import luma

# Bins of gradient magnitudes in luma, 0..255; larger magnitudes fall into the last bin.
_EDGES = np.concatenate([[0.0], np.geomspace(0.5, 256.0, 40)])


def log_spectral_distance(sr: Pixels8, hr: Pixels8) -> float:
    """RMS difference of the log-magnitude spectra of luma, averaged over rings of frequency.

    Rings ignore phase and position: the measure asks how much detail there is at each
    frequency, not where.

    Args:
        sr: upscaled image, ``(H, W, 3)`` uint8.
        hr: original, the same shape.

    Returns:
        Decibels; 0 for equal images.
    """
    difference = _rings(sr) - _rings(hr)
    return float(np.sqrt(np.mean(difference**2)))


def _rings(pixels: Pixels8) -> NDArray[np.float64]:
    """Mean power in dB in 64 rings from 0 to the Nyquist frequency."""
    y = luma(pixels)
    # Without a window, the jump between opposite borders would count as detail.
    window = np.outer(np.hanning(y.shape[0]), np.hanning(y.shape[1]))
    power = np.abs(np.fft.fft2((y - y.mean()) * window)) ** 2 / window.sum()
    radius = np.hypot(np.fft.fftfreq(y.shape[0])[:, None], np.fft.fftfreq(y.shape[1])[None, :])
    ring = np.minimum((radius * 128).astype(np.int64), 64).ravel()
    total = np.bincount(ring, power.ravel(), 65)[:64]
    count = np.maximum(np.bincount(ring, minlength=65)[:64], 1)
    return 10.0 * np.log10(total / count + 1e-3)


def gradient_distance(sr: Pixels8, hr: Pixels8) -> float:
    """Distance between the histograms of luma gradient magnitudes.

    It is half the sum of absolute differences; bins widen by a constant factor.

    Args:
        sr: upscaled image, ``(H, W, 3)`` uint8.
        hr: original, the same shape.

    Returns:
        0 for equal histograms, at most 1.
    """
    return float(0.5 * np.abs(_shares(sr) - _shares(hr)).sum())


def blockiness(pixels: Pixels8, period: int) -> float:
    """How much larger luma steps are at the borders of blocks than elsewhere.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        period: side of a block in pixels; 8 times the scale for an enlarged JPEG.

    Returns:
        1 where no blocks show.
    """
    y = luma(pixels)
    ratios: list[float] = []
    for steps in (np.abs(np.diff(y, axis=1)), np.abs(np.diff(y, axis=0)).T):
        at_border = np.arange(steps.shape[1]) % period == period - 1
        ratios.append(float(steps[:, at_border].mean() / max(steps[:, ~at_border].mean(), 1e-6)))
    return float(np.mean(ratios))


def _shares(pixels: Pixels8) -> NDArray[np.float64]:
    y = luma(pixels)
    magnitude = np.hypot(np.diff(y, axis=0)[:, :-1], np.diff(y, axis=1)[:-1])
    counts = np.histogram(np.minimum(magnitude, _EDGES[-1]), _EDGES)[0]
    return counts / counts.sum()
