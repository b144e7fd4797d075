"""Interpolation kernels and their filter taps, in NumPy alone.

The classical upsampler on arrays and the fixed base path inside the networks use the same taps, so
they always agree.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from paragonsr2.errors import OptionError, ScaleError
from paragonsr2.variants import SCALES

Array = npt.NDArray[np.float64]


def cubic(x: Array) -> Array:
    """Keys' cubic convolution kernel with a = -0.5, support [-2, 2] (MATLAB's ``bicubic``)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1.0
    far = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x <= 1.0, near, np.where(x <= 2.0, far, 0.0))


def magic(x: Array) -> Array:
    """The Magic Kernel: the quadratic B-spline, support [-3/2, 3/2].

    Source: Costella, "The Magic Kernel".
    """
    x = np.abs(x)
    return np.where(x <= 0.5, 0.75 - x**2, np.where(x <= 1.5, 0.5 * (x - 1.5) ** 2, 0.0))


def magic_sharp_2021(x: Array) -> Array:
    """Magic Kernel Sharp 2021, support [-9/2, 9/2].

    Source: Costella, "The Magic Kernel", 2021 form.
    """
    x = np.abs(x)
    pieces = [
        577.0 / 576.0 - 239.0 / 144.0 * x**2,
        (140.0 * x**2 - 379.0 * x + 239.0) / 144.0,
        -(24.0 * x**2 - 113.0 * x + 130.0) / 144.0,
        (4.0 * x**2 - 27.0 * x + 45.0) / 144.0,
        -((2.0 * x - 9.0) ** 2) / 1152.0,
    ]
    return np.select([x <= 0.5, x <= 1.5, x <= 2.5, x <= 3.5, x <= 4.5], pieces, 0.0)


def magic_blend(alpha: float) -> Callable[[Array], Array]:
    """Return the linear blend of :func:`magic` (``alpha`` 0) and :func:`magic_sharp_2021` (1).

    Raises:
        OptionError: ``alpha`` is outside 0..1.
    """
    if not 0.0 <= alpha <= 1.0:
        raise OptionError(f"upsampler_alpha is {alpha}; use a number from 0 to 1")
    return lambda x: (1.0 - alpha) * magic(x) + alpha * magic_sharp_2021(x)


def polyphase_taps(scale: int, alpha: float) -> Array:
    """Return the Magic Kernel as one short filter per output phase.

    Output pixel ``scale * i + p`` is centred ``(p + 0.5) / scale - 0.5`` input pixels from
    input pixel ``i``, which is how PIL and libvips align pixels.

    Args:
        scale: 2, 3, 4 or 8.
        alpha: 0 = Magic Kernel, 1 = Magic Kernel Sharp 2021.

    Returns:
        ``(scale, K)`` with odd ``K``; tap ``k`` weighs input pixel ``i + k - K // 2``.
        Every row sums to 1. Outer columns that are zero in all phases are removed.

    Raises:
        ScaleError: ``scale`` is not supported.
        OptionError: ``alpha`` is outside 0..1.
    """
    if scale not in SCALES:
        raise ScaleError(f"scale {scale} is not one of {', '.join(map(str, SCALES))}")
    centres = (np.arange(scale) + 0.5) / scale - 0.5
    reach = 5
    taps = magic_blend(alpha)(np.arange(-reach, reach + 1)[None, :] - centres[:, None])
    while reach > 0 and not taps[:, [0, -1]].any():
        taps, reach = taps[:, 1:-1], reach - 1
    return taps / taps.sum(axis=1, keepdims=True)
