"""Resizing of arrays in NumPy alone: MATLAB's bicubic and the Magic Kernel."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from paragonsr2.arrays.kernels import cubic, polyphase_taps
from paragonsr2.arrays.pixels import Pixels, round_half_up
from paragonsr2.errors import OptionError


def contributions(
    length: int, out_length: int, scale: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return input indices and weights ``(out_length, taps)`` along one axis.

    When shrinking, the kernel is stretched by ``1 / scale`` (antialiasing).
    """
    stretch = min(scale, 1.0)
    taps = math.ceil(4.0 / stretch) + 2
    centre = (np.arange(1, out_length + 1) / scale) + 0.5 * (1.0 - 1.0 / scale)
    left = np.floor(centre - 2.0 / stretch)
    index = left[:, None] + np.arange(taps)
    weight = cubic((centre[:, None] - index) * stretch)
    weight /= weight.sum(axis=1, keepdims=True)
    used = weight.any(axis=0)
    clamped = np.clip(index, 1, length).astype(np.intp) - 1
    return clamped[:, used], weight[:, used]


def _resize_rows(image: Pixels, out_length: int, scale: float) -> Pixels:
    index, weight = contributions(image.shape[0], out_length, scale)
    total = np.zeros((out_length, *image.shape[1:]), dtype=np.float64)
    for tap in range(index.shape[1]):
        total += weight[:, tap, None, None] * image[index[:, tap]]
    return round_half_up(total, image)


def bicubic(image: Pixels, scale: float) -> Pixels:
    """Resize as MATLAB's ``imresize(image, scale)`` does, bit for bit for uint8.

    This is antialiased bicubic (a = -0.5) with clamped border indices, height first, then width.
    Integer images are rounded half up after *each* pass, because MATLAB stores them in between.

    Args:
        image: ``(H, W, C)`` uint8, uint16 or float32.
        scale: factor, above or below 1.

    Returns:
        ``(ceil(H * scale), ceil(W * scale), C)`` of the same dtype.

    Raises:
        OptionError: ``scale`` is not positive.
    """
    if scale <= 0:
        raise OptionError(f"cannot resize by {scale}; use a positive factor")
    height, width = (math.ceil(round(side * scale, 6)) for side in image.shape[:2])
    resized = _resize_rows(image, height, scale)
    columns = _resize_rows(resized.swapaxes(0, 1), width, scale)
    return np.ascontiguousarray(columns.swapaxes(0, 1))


def _magic_rows(x: npt.NDArray[np.float32], scale: int, alpha: float) -> npt.NDArray[np.float32]:
    taps = polyphase_taps(scale, alpha).astype(np.float32)
    reach = taps.shape[1] // 2
    padded = np.pad(x, ((reach, reach), (0, 0), (0, 0)), mode="edge")
    out = np.zeros((x.shape[0], scale, *x.shape[1:]), dtype=np.float32)
    for phase in range(scale):
        for k, weight in enumerate(taps[phase]):
            out[:, phase] += weight * padded[k : k + x.shape[0]]
    return out.reshape(-1, *x.shape[1:])


def magic(x: npt.NDArray[np.float32], scale: int, alpha: float) -> npt.NDArray[np.float32]:
    """Enlarge with the Magic Kernel: the base path of the networks, on arrays.

    Args:
        x: ``(H, W, C)`` float32, any range.
        scale: 2, 3, 4 or 8.
        alpha: 0 = Magic Kernel, 1 = Magic Kernel Sharp 2021.

    Returns:
        ``(H * scale, W * scale, C)`` float32, not clipped.

    Raises:
        ScaleError: ``scale`` is not supported.
        OptionError: ``alpha`` is outside 0..1.
    """
    rows = _magic_rows(x, scale, alpha)
    return np.ascontiguousarray(_magic_rows(rows.swapaxes(0, 1), scale, alpha).swapaxes(0, 1))
