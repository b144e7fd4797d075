"""Steadier video: an enlarged frame takes a share of the one before it, moved along the motion.

The detail that a network adds differs a little from frame to frame, which is seen as flicker. Two
neighbouring frames show nearly the same detail, so that their mean, along the motion, is steadier.
Nothing is taken from further back: there are no trails, and an interrupted job has to compute one
frame more than those it still has to make.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from paragonsr2.arrays.pixels import Pixels, Pixels8, Pixels16, to_8_bits
from paragonsr2.errors import MissingExtraError

#: Share of the frame before in a frame, where both agree; why so much:
#: ``docs/decisions/0002-temporal-blending.md``.
SHARE = 0.25

# In 8-bit steps of the small frames: the difference at which the share has fallen to 1/e of
# itself, and the mean change of hue, saturation and value at which a shot begins, as in
# PySceneDetect's ContentDetector.
_AGREEING, _CUT = 3.0, 27.0

# Squared pixels of a small frame by which motion there and back may miss, beside 1 % of its own
# square (Sundaram, Brox and Keutzer 2010).
_ASTRAY = 0.5

# Pixels by which motion may differ among neighbours.
_UNEVEN = 1.0

# Sides that OpenCV's motion search and its remapping take.
_LEAST, _MOST = 12, 32766

_Plane = npt.NDArray[np.float32]


class Steadier:
    """Takes flicker from enlarged frames.

    Args:
        scale: of the enlarged frames.
        share: of the frame before, 0..1.

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
        """What decides the result, beside the frames."""
        return f"{self._share} of the frame before, OpenCV {self._cv.__version__}"

    def __call__(self, small: tuple[Pixels, Pixels], large: tuple[Pixels16, Pixels16]) -> Pixels16:
        """A frame with a share of the one before it.

        Args:
            small: the frame before and the frame, ``(H, W, 3 or 4)`` uint8 or uint16.
            large: both enlarged, neither of them steadied, ``(H * scale, W * scale, 3 or 4)``
                uint16: an 8-bit frame rounded before and after would flicker by its rounding.

        Returns:
            The frame, steadied: as it is where the small frames do not agree, and everywhere
            after a cut or if a side is under 12 pixels or over 32,766.
        """
        before, now = (to_8_bits(frame) for frame in small)
        height, width = large[1].shape[:2]
        if min(now.shape[:2]) < _LEAST or max(height, width) > _MOST or self.is_cut(before, now):
            return large[1]
        cv = self._cv
        motion, trust = self._find_motion(before, now)
        from_where = _places(cv.resize(motion, (width, height)) * np.float32(self._scale))
        moved = cv.remap(large[0], from_where, None, cv.INTER_CUBIC, borderMode=cv.BORDER_REPLICATE)
        weight = cv.resize(trust, (width, height)) * np.float32(self._share)
        change = cv.subtract(moved, large[1], dtype=cv.CV_32F)
        change *= weight[..., None]
        steadied: Pixels16 = cv.add(large[1], change, dtype=cv.CV_16U)
        return steadied

    def is_cut(self, before: Pixels8, now: Pixels8) -> bool:
        """Whether a shot begins with ``now``; both ``(H, W, 3 or 4)``."""
        cv = self._cv
        a, b = (cv.cvtColor(_rgb(frame), cv.COLOR_RGB2HSV) for frame in (before, now))
        return float(cv.absdiff(a, b).mean()) >= _CUT

    def _find_motion(self, before: Pixels8, now: Pixels8) -> tuple[_Plane, _Plane]:
        """Where each pixel of ``now`` was, ``(H, W, 2)`` offsets x, y; trust in that, 0..1."""
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
        # What has not moved is not to be shaken by errors of the motion.
        still = changed <= difference
        back[still] = 0
        agreed = still | (inside & (missed <= 0.01 * length + _ASTRAY))
        # Between two motions the enlarged one is neither.
        window = np.ones((3, 3), np.uint8)
        spread = cv.subtract(cv.dilate(back, window), cv.erode(back, window))
        agreed &= cv.inRange(spread, (0, 0), (_UNEVEN, _UNEVEN)) > 0
        trust = np.exp(-((np.minimum(changed, difference) / _AGREEING) ** 2)) * agreed
        # What lies beside a wrong place is seldom right.
        return back, cv.erode(trust, window)

    def _difference(self, one: Pixels8, other: Pixels8) -> _Plane:
        """Of the channel that differs most, ``(H, W)`` in steps; noise cancels out."""
        cv = self._cv
        smooth = cv.GaussianBlur(cv.subtract(one, other, dtype=cv.CV_32F), (5, 5), 0)
        return functools.reduce(np.maximum, cv.split(np.abs(smooth)))


def _rgb(frame: Pixels8) -> Pixels8:
    return np.ascontiguousarray(frame[..., :3])


def _square(offsets: _Plane) -> _Plane:
    """Squared lengths, ``(H, W)``, of ``(H, W, 2)`` offsets."""
    return offsets[..., 0] ** 2 + offsets[..., 1] ** 2


def _places(offsets: _Plane) -> _Plane:
    """Offsets x, y from each pixel, as coordinates."""
    height, width = offsets.shape[:2]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return offsets + np.stack(np.broadcast_arrays(x, y[:, None]), axis=-1)
