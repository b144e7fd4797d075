"""Pictures drawn by code: text, shapes, windows of programs, curves.

Photographs have few hard edges on flat ground, and no exact ones. About 60 % of these pictures have
smoothed edges, the others hard ones.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import MissingExtraError

#: Side of a drawn picture, in pixels.
SIDE = 480
#: Seed of the pictures for validation: the same in every run, and no run's own.
VALIDATION_SEED = 2**40

# Freely licensed fonts that Matplotlib brings, so that every machine draws the same.
_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic",
    "STIXGeneral", "STIXGeneralBolIta", "cmr10", "cmss10", "cmtt10",
)  # fmt: skip
_LETTERS = "etaoinshrdlucmfwypvbgkqjxzETAOINSHRDLUCMFWYPVBGKQJXZ0123456789.,:;!?()[]{}+-=/*&%$#@"
# Edges are smoothed by drawing so many times larger.
_OVERSAMPLING = 4


def draw_picture(index: int, seed: int) -> Pixels8:
    """Draw one picture; the same numbers give the same picture.

    Args:
        index: number of the picture, from 0; the kinds of picture alternate.
        seed: of the whole series.

    Returns:
        RGB ``(SIDE, SIDE, 3)`` uint8.

    Raises:
        MissingExtraError: Matplotlib, which brings the fonts, is not installed.
    """
    return _Drawing(np.random.default_rng((seed, index)), SIDE).picture(index)


def draw_pair(index: int, seed: int, scale: int) -> tuple[Pixels8, Pixels8]:
    """Draw one picture at two resolutions, as a program draws on two screens.

    A picture that is shrunk has no edge as hard as one that is drawn small.

    Args:
        index: number of the picture, from 0; the kinds of picture alternate.
        seed: of the whole series.
        scale: ratio of the two resolutions.

    Returns:
        High resolution, RGB ``(SIDE // scale * scale, the same, 3)`` uint8, and low resolution.

    Raises:
        MissingExtraError: Matplotlib, which brings the fonts, is not installed.
    """
    low, high = (
        _Drawing(np.random.default_rng((seed, index)), SIDE // scale, zoom).picture(index)
        for zoom in (1, scale)
    )
    return high, low


def font_folder() -> Path:
    """Folder of the TrueType fonts that Matplotlib brings.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise MissingExtraError("drawing pictures", "train")
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


class _Drawing:
    """A picture being drawn.

    Args:
        rng: decides what is drawn, and is called alike at every zoom.
        side: of the picture at zoom 1, in pixels.
        zoom: how many times larger the same is drawn, exactly: a pixel becomes a square.
    """

    def __init__(self, rng: np.random.Generator, side: int, zoom: int = 1) -> None:
        self.rng, self.side, self.zoom = rng, side, zoom
        self.smooth = bool(rng.random() < 0.6)
        # Text has its own smoothing; drawn large and reduced, its strokes would be too even.
        self.factor = _OVERSAMPLING if self.smooth else 1
        ground = self._colour(light=bool(rng.random() < 0.7))
        large = side * self.factor * zoom
        self.image = Image.new("RGB", (large, large), ground)
        self.pen = ImageDraw.Draw(self.image)
        self.ink = self._contrast(ground)

    def picture(self, index: int) -> Pixels8:
        """Draw the kind of picture that ``index`` selects."""
        kinds = (self._shapes, self._windows, self._curves)
        if index % 4:
            kinds[index % 4 - 1]()
        self._finish()
        if index % 4 == 0:
            self._page()
        elif self.rng.random() < 0.5:
            self._lines_of_text(int(self.rng.integers(1, 5)))
        return np.asarray(self.image)

    def _finish(self) -> None:
        if self.factor > 1:
            side = self.side * self.zoom
            self.image = self.image.resize((side, side), Image.Resampling.BOX)
            self.factor = 1
        self.pen = ImageDraw.Draw(self.image)
        self.pen.fontmode = "L" if self.smooth else "1"

    def _colour(self, *, light: bool) -> tuple[int, int, int]:
        low, high = (200, 256) if light else (0, 70)
        if self.rng.random() < 0.4:  # often it is just white or black
            return (255, 255, 255) if light else (0, 0, 0)
        if self.rng.random() < 0.4:
            grey = int(self.rng.integers(low, high))
            return grey, grey, grey
        red, green, blue = (int(value) for value in self.rng.integers(low, high, 3))
        return red, green, blue

    def _any(self) -> tuple[int, int, int]:
        red, green, blue = (int(value) for value in self.rng.integers(0, 256, 3))
        return red, green, blue

    def _contrast(self, ground: tuple[int, int, int]) -> tuple[int, int, int]:
        return self._colour(light=sum(ground) < 384) if self.rng.random() < 0.8 else self._any()

    # Places are pixels at zoom 1, before the reduction that smooths them.

    def _place(self) -> tuple[int, int]:
        x, y = self.rng.random(2) * self.side * self.factor
        return int(x), int(y)

    def _box(self, left: float, top: float, right: float, bottom: float) -> list[int]:
        """The box from one pixel to another, both included."""
        zoom = self.zoom
        near = [math.floor(value) * zoom for value in (left, top)]
        return [*near, *((math.floor(value) + 1) * zoom - 1 for value in (right, bottom))]

    def _points(self, places: list[tuple[int, int]]) -> list[tuple[float, float]]:
        """The centres of pixels."""
        zoom = self.zoom
        return [((x + 0.5) * zoom - 0.5, (y + 0.5) * zoom - 0.5) for x, y in places]

    def _width(self) -> int:
        wide = round(float(self.rng.choice([1, 1, 2, 3, 5, 9])) * self.factor)
        return max(1, wide) * self.zoom

    def _page(self) -> None:
        """A page of text from top to bottom."""
        y = int(self.rng.integers(0, 20))
        while y < self.side:
            y += self._line(int(self.rng.integers(-30, 30)), y)

    def _lines_of_text(self, count: int) -> None:
        for _ in range(count):
            x, y = self._place()
            self._line(x - self.side // 4, y)

    def _line(self, x: int, y: int) -> int:
        """Write one line; returns its height."""
        size = int(self.rng.choice([9, 11, 12, 13, 14, 16, 18, 22, 28, 40, 64]))
        path = str(font_folder() / f"{self.rng.choice(_FONTS)}.ttf")
        small, font = (ImageFont.truetype(path, size * zoom) for zoom in (1, self.zoom))
        letters = self.rng.choice(list(_LETTERS), int(self.rng.integers(4, 60)))
        spaces = self.rng.random(letters.size) < 0.17
        fill = self.ink if self.rng.random() < 0.8 else self._any()
        base = y + small.getmetrics()[0]
        # Letter by letter, on whole pixels at zoom 1, so that the same line is as long at any zoom.
        for letter, space in zip(letters, spaces, strict=True):
            if not space:
                place = (x * self.zoom, base * self.zoom)
                self.pen.text(place, str(letter), fill=fill, font=font, anchor="ls")
            x += max(1, round(small.getlength(" " if space else str(letter))))
        return round(1.3 * size)

    def _shapes(self) -> None:
        for _ in range(int(self.rng.integers(4, 16))):
            (x, y), radius = self._place(), float(self.rng.integers(3, 120)) * self.factor
            radius *= self.side / SIDE
            fill = self._any() if self.rng.random() < 0.6 else None
            outline = self.ink if fill is None or self.rng.random() < 0.4 else None
            flat = radius * float(self.rng.uniform(0.3, 1.0))
            box = self._box(x - radius, y - flat, x + radius, y + flat)
            match int(self.rng.integers(0, 4)):
                case 0:
                    self.pen.ellipse(box, fill=fill, outline=outline, width=self._width())
                case 1:
                    self.pen.rectangle(box, fill=fill, outline=outline, width=self._width())
                case 2:
                    places = [self._place() for _ in range(int(self.rng.integers(3, 6)))]
                    corners = self._points(places)
                    self.pen.polygon(corners, fill=fill, outline=outline, width=self._width())
                case _:
                    ends = self._points([(x, y), self._place()])
                    self.pen.line(ends, fill=self.ink, width=self._width())

    def _windows(self) -> None:
        """Windows, rules and grids, aligned to pixels as programs draw them."""
        f = self.factor
        for _ in range(int(self.rng.integers(3, 9))):
            left, top = (
                int(value) * f for value in self.rng.integers(0, max(1, self.side - 60), 2)
            )
            right, bottom = (
                start + int(value) * f
                for start, value in zip((left, top), self.rng.integers(40, 260, 2), strict=True)
            )
            ground = self._colour(light=bool(self.rng.random() < 0.7))
            box = self._box(left, top, right + f - 1, bottom + f - 1)
            self.pen.rectangle(box, fill=ground, outline=self.ink, width=f * self.zoom)
            step = int(self.rng.choice([2, 3, 6, 10, 16, 24])) * f
            if self.rng.random() < 0.5:
                for y in range(top + step, bottom, step):
                    self.pen.rectangle(self._box(left, y, right, y + f - 1), fill=self.ink)
            if self.rng.random() < 0.3:
                for x in range(left + step, right, step):
                    self.pen.rectangle(self._box(x, top, x + f - 1, bottom), fill=self.ink)

    def _curves(self) -> None:
        side = self.side * self.factor
        for _ in range(int(self.rng.integers(2, 9))):
            turns, phase, height = self.rng.uniform((0.5, 0.0, 0.05), (12.0, 6.3, 0.45))
            middle = float(self.rng.uniform(0.1, 0.9))
            places = [
                (x, int(side * (middle + height * math.sin(phase + turns * 6.3 * x / side))))
                for x in range(0, side + self.factor, self.factor)
            ]
            self.pen.line(self._points(places), fill=self._any(), width=self._width())
