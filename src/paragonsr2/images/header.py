"""The header of an image file, and the decoded picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from paragonsr2.arrays.pixels import Pixels


@dataclass(frozen=True)
class Header:
    """What is known about an image before its pixels are decoded.

    Attributes:
        width, height: of one page, upright.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; alpha is straight.
        dtype: uint8, uint16 or float32.
        carried: libvips metadata fields to write again (EXIF, XMP, IPTC, ICC profile), as
            (GType, value) by name.
        resolution: pixels per millimetre, horizontally and vertically.
        pages: of an animation or document; 1 otherwise.
        delays: milliseconds that each page is shown; empty where there are none.
        loop: how often an animation is played, 0 for ever.
        opaque: there is alpha, and it is full everywhere.
        notes: messages about what is left out.
    """

    width: int
    height: int
    channels: int
    dtype: np.dtype[Any]
    carried: Mapping[str, tuple[int, Any]] = field(default_factory=dict[str, tuple[int, Any]])
    resolution: tuple[float, float] = (1.0, 1.0)
    pages: int = 1
    delays: tuple[int, ...] = ()
    loop: int = 0
    opaque: bool = False
    notes: tuple[str, ...] = ()

    def enlarged(self, scale: int) -> Header:
        """The header of the same picture with ``scale`` times the pixels a side."""
        xres, yres = self.resolution
        return replace(
            self,
            width=self.width * scale,
            height=self.height * scale,
            resolution=(xres * scale, yres * scale),
        )


@dataclass(frozen=True)
class Picture:
    """A decoded image with its metadata.

    Attributes:
        pixels: ``(H, W, C)`` uint8, uint16 or float32, upright; C = 1 grey, 2 grey and alpha,
            3 RGB, 4 RGB and alpha; straight alpha.
        carried: as in :class:`Header`.
        resolution: as in :class:`Header`.
    """

    pixels: Pixels
    carried: Mapping[str, tuple[int, Any]] = field(default_factory=dict[str, tuple[int, Any]])
    resolution: tuple[float, float] = (1.0, 1.0)
