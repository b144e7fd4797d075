"""The types of arrays that hold pictures, and conversions between their depths."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: ``(H, W, C)``: integers using their full range, or float32 nominally 0..1.
Pixels = npt.NDArray[np.uint8 | np.uint16 | np.float32]

#: ``(H, W, C)``, 8 bit.
Pixels8 = npt.NDArray[np.uint8]

#: ``(H, W, C)``, 16 bit.
Pixels16 = npt.NDArray[np.uint16]

#: ``(N, C, H, W)`` float32, nominally 0..1: input and output of the networks.
FloatNCHW = npt.NDArray[np.float32]


def full_scale(pixels: Pixels | np.dtype[Any]) -> float:
    """Return the value of white in an array or a dtype: 255, 65535 or 1.0."""
    dtype = pixels if isinstance(pixels, np.dtype) else pixels.dtype
    return 1.0 if dtype == np.float32 else float(2 ** (8 * dtype.itemsize) - 1)


def round_half_up(values: npt.NDArray[np.floating], like: Pixels) -> Pixels:
    """Convert ``values`` to the dtype of ``like``.

    Integers are clipped, with halves rounded up as MATLAB does. float32 is neither.
    """
    if like.dtype == np.float32:
        return values.astype(np.float32)
    clipped = np.clip(values, 0, full_scale(like))
    clipped += 0.5
    # The cast rounds non-negative values down.
    return clipped.astype(like.dtype)


def to_16_bits(pixels: Pixels) -> Pixels16:
    """Convert a picture of 8 or 16 bits to 16 bits; white stays white."""
    deep = pixels.astype(np.uint16)
    return deep if pixels.dtype == np.uint16 else deep * np.uint16(257)


def to_8_bits(pixels: Pixels) -> Pixels8:
    """Convert a picture of 8 or 16 bits to 8 bits, rounding to the nearest value."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8)
    wide = pixels.astype(np.uint32)
    wide *= 255
    wide += 32895
    # Together this divides by 257 and rounds, for every 16-bit number.
    wide >>= 16
    return wide.astype(np.uint8)
