"""Steadier video: each enlarged frame is blended with the previous one, moved along the motion.

The detail that a network adds differs a little from frame to frame, which is visible as flicker.
Two neighbouring frames show nearly the same detail, so their mean along the motion is steadier.
Only the previous frame is used, as the network made it. Thus there are no trails, and a job that
is resumed has to compute only one frame again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from paragonsr2.arrays.pixels import Pixels, Pixels8, Pixels16, to_8_bits
from paragonsr2.errors import MissingExtraError

#: Share of the previous frame where both frames agree. The value is explained in
#: ``docs/decisions/0002-temporal-blending.md``.
SHARE = 0.25

# In 8-bit steps of the small frames: the difference at which the share has fallen to 1/e, and the
# mean change of hue, saturation and value that marks a cut, as in PySceneDetect's ContentDetector.
_AGREEING, _CUT = 3.0, 27.0

# Tolerance of the forward-backward check of the motion, in squared pixels of a small frame, in
# addition to 1 % of the squared motion (Sundaram, Brox and Keutzer 2010).
_ASTRAY = 0.5

# Largest difference of motion among neighbouring pixels, in pixels.
_UNEVEN = 1.0

# The shortest side for OpenCV's motion search and the longest for its remapping, in pixels.
_LEAST, _MOST = 12, 32766

# Rows of a large frame that are blended at once.
_ROWS = 32

_Plane = npt.NDArray[np.float32]


class Steadier:
    """Removes flicker from enlarged frames.

    Args:
        scale: enlargement of the frames.
        share: weight of the previous frame, 0..1.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """

    def __init__(self, scale: int, share: float = SHARE) -> None:
        try:
            import cv2
        except ImportError as error:
            raise MissingExtraError("steadying video (--temporal)", "temporal") from error
        self._cv: Any = cv2
        self._scale, self._share = scale, share
        self._search: Any = self._cv.DISOpticalFlow_create(self._cv.DISOPTICAL_FLOW_PRESET_FAST)

    @property
    def digest(self) -> str:
        """Everything beside the frames that determines the result."""
        return f"{self._share} of the frame before, OpenCV {self._cv.__version__}"

    def __call__(self, small: tuple[Pixels, Pixels], large: tuple[Pixels16, Pixels16]) -> Pixels16:
        """Blend a frame with the previous one.

        Args:
            small: the previous and the current frame, ``(H, W, 3 or 4)`` uint8 or uint16.
            large: both enlarged and not steadied, ``(H * scale, W * scale, 3 or 4)`` uint16.
                Frames of 8 bits would flicker by being rounded twice.

        Returns:
            The current frame, steadied. It is unchanged where the small frames disagree, and
            entirely unchanged after a cut or if a side is under 12 or over 32,766 pixels.
        """
        before, now = (to_8_bits(frame) for frame in small)
        height, width = large[1].shape[:2]
        if min(now.shape[:2]) < _LEAST or max(height, width) > _MOST or self.is_cut(before, now):
            return large[1]
        cv = self._cv
        motion, trust = self._find_motion(before, now)
        offsets, weights = cv.resize(motion, (width, height)), cv.resize(trust, (width, height))
        steadied = np.empty_like(large[1])
        # A few rows at a time, which stay in the cache.
        for top in range(0, height, _ROWS):
            rows = slice(top, top + _ROWS)
            from_where = _places(offsets[rows] * np.float32(self._scale), top)
            moved = cv.remap(
                large[0], from_where, None, cv.INTER_CUBIC, borderMode=cv.BORDER_REPLICATE
            )
            change = cv.subtract(moved, large[1][rows], dtype=cv.CV_32F)
            weight = weights[rows] * np.float32(self._share)
            change = cv.multiply(change, cv.merge([weight] * change.shape[2]))
            steadied[rows] = cv.add(large[1][rows], change, dtype=cv.CV_16U)
        return steadied

    def is_cut(self, before: Pixels8, now: Pixels8) -> bool:
        """Whether there is a cut between two frames, ``(H, W, 3 or 4)`` each."""
        cv = self._cv
        a, b = (cv.cvtColor(_rgb(frame), cv.COLOR_RGB2HSV) for frame in (before, now))
        return float(cv.absdiff(a, b).mean()) >= _CUT

    def _find_motion(self, before: Pixels8, now: Pixels8) -> tuple[_Plane, _Plane]:
        """Motion from ``now`` back to ``before``, ``(H, W, 2)`` x, y, and trust in it, 0..1."""
        cv = self._cv
        a, b = (cv.cvtColor(_rgb(frame), cv.COLOR_RGB2GRAY) for frame in (before, now))
        back, forth = self._search.calc(b, a, None), self._search.calc(a, b, None)
        places = _places(back)
        there = cv.remap(forth, places, None, cv.INTER_LINEAR, borderMode=cv.BORDER_REPLICATE)
        missed, length = _square(back + there), _square(back) + _square(there)
        height, width = b.shape
        inside = cv.inRange(places, (0, 0), (width - 1, height - 1)) > 0
        moved = cv.remap(before, places, None, cv.INTER_CUBIC, borderMode=cv.BORDER_REPLICATE)
        changed, difference = self._difference(before, now), self._difference(moved, now)
        # Errors of the motion must not shake what has not moved.
        still = changed <= difference
        # Both offsets of a pixel at once, as one number of 64 bits.
        back.view(np.uint64)[still] = 0
        agreed = still | (inside & (missed <= 0.01 * length + _ASTRAY))
        # Enlarging would interpolate between two different motions; distrust their border.
        window = np.ones((3, 3), np.uint8)
        spread = cv.subtract(cv.dilate(back, window), cv.erode(back, window))
        agreed &= cv.inRange(spread, (0, 0), (_UNEVEN, _UNEVEN)) > 0
        trust = np.exp(-((np.minimum(changed, difference) / _AGREEING) ** 2)) * agreed
        # The neighbours of a wrong pixel are seldom right.
        return back, cv.erode(trust, window)

    def _difference(self, one: Pixels8, other: Pixels8) -> _Plane:
        """Difference in the most different channel, ``(H, W)`` in steps; noise averages out."""
        cv = self._cv
        most: Any = None
        for pair in zip(cv.split(one), cv.split(other), strict=True):
            smooth = cv.GaussianBlur(cv.subtract(*pair, dtype=cv.CV_32F), (5, 5), 0)
            np.abs(smooth, out=smooth)
            most = smooth if most is None else cv.max(most, smooth, most)
        return most


def _rgb(frame: Pixels8) -> Pixels8:
    return np.ascontiguousarray(frame[..., :3])


def _square(offsets: _Plane) -> _Plane:
    """Squared lengths, ``(H, W)``, of ``(H, W, 2)`` offsets."""
    squares = np.square(offsets)
    return squares[..., 0] + squares[..., 1]


def _places(offsets: _Plane, top: int = 0) -> _Plane:
    """The coordinates that offsets x, y from each pixel lead to, in rows from ``top`` on."""
    height, width = offsets.shape[:2]
    places = np.empty_like(offsets)
    np.add(offsets[..., 0], np.arange(width, dtype=np.float32), out=places[..., 0])
    down = np.arange(top, top + height, dtype=np.float32)
    np.add(offsets[..., 1], down[:, None], out=places[..., 1])
    return places
