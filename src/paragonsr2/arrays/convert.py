"""Conversion between pixels (H, W, C) and network input (N, C, H, W)."""

from __future__ import annotations

import numpy as np

from paragonsr2.arrays.pixels import FloatNCHW, Pixels, full_scale, round_half_up

#: Values of a plane that are converted at once.
_CACHED = 65536


def to_float(pixels: Pixels) -> FloatNCHW:
    """Convert ``(H, W, C)`` to ``(1, C, H, W)`` float32, nominally 0..1."""
    x = pixels.astype(np.float32) / np.float32(full_scale(pixels))
    return np.ascontiguousarray(x.transpose(2, 0, 1))[None]


def to_pixels(x: FloatNCHW, like: Pixels) -> Pixels:
    """Convert ``(1, C, H, W)`` to ``(H, W, C)`` in the dtype of ``like``.

    Integers are clipped, with halves rounded up. float32 is neither.
    """
    channels, height, width = x.shape[1:]
    out = np.empty((height, width, channels), like.dtype)
    white = np.float32(full_scale(like))
    # By planes and in few rows, which stay in the cache: less than half the time of the whole.
    rows = max(1, _CACHED // width)
    for top in range(0, height, rows):
        for channel in range(channels):
            part = x[0, channel, top : top + rows]
            out[top : top + rows, :, channel] = round_half_up(part * white, like)
    return out
