"""Self-ensemble: the mean of what a network makes of a picture and its seven mirror images."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from paragonsr2.arrays.pixels import FloatNCHW

#: Number of views: as they are, mirrored along either axis, and each transposed.
VIEWS = 8


def averaged(
    run: Callable[[FloatNCHW], FloatNCHW], x: FloatNCHW, scale: int, multiple: int
) -> FloatNCHW:
    """Enlarge all views and return the mean, turned back.

    A network that divides a picture into windows must find the same windows in a mirrored tile as
    in the whole mirrored picture, so sides are first extended to a multiple of the windows.

    Args:
        run: enlarges ``(1, 3, H, W)``.
        x: ``(1, 3, H, W)``.
        scale: of ``run``.
        multiple: tiles start at multiples of this.

    Returns:
        ``(1, 3, H * scale, W * scale)`` float32.
    """
    height, width = x.shape[2:]
    extra = [(0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple)]
    whole = np.pad(x, extra, mode="edge") if multiple > 1 else x
    sides = (x.shape[0], x.shape[1], whole.shape[2] * scale, whole.shape[3] * scale)
    total = np.zeros(sides, np.float32)
    for down, right, turned in product((1, -1), (1, -1), (False, True)):
        view = whole[:, :, ::down, ::right]
        view = view.swapaxes(2, 3) if turned else view
        large = run(np.ascontiguousarray(view))
        total += (large.swapaxes(2, 3) if turned else large)[:, :, ::down, ::right]
    return (total / np.float32(VIEWS))[:, :, : height * scale, : width * scale]
