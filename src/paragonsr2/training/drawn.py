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
    return _Drawing(np.random.default_rng((seed, index))).picture(index)


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
    """A picture being drawn."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.smooth = bool(rng.random() < 0.6)
        # Text has its own smoothing; drawn large and reduced, its strokes would be too even.
        self.factor = _OVERSAMPLING if self.smooth else 1
        ground = self._colour(light=bool(rng.random() < 0.7))
        side = SIDE * self.factor
        self.image = Image.new("RGB", (side, side), ground)
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
            self.image = self.image.resize((SIDE, SIDE), Image.Resampling.BOX)
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

    def _place(self) -> tuple[float, float]:
        x, y = self.rng.random(2) * SIDE * self.factor
        return float(x), float(y)

    def _width(self) -> int:
        return max(1, round(float(self.rng.choice([1, 1, 2, 3, 5, 9])) * self.factor))

    def _page(self) -> None:
        """A page of text from top to bottom."""
        y = float(self.rng.integers(0, 20))
        while y < SIDE:
            y += self._line(float(self.rng.integers(-30, 30)), y)

    def _lines_of_text(self, count: int) -> None:
        for _ in range(count):
            x, y = self._place()
            self._line(x - SIDE / 4, y)

    def _line(self, x: float, y: float) -> float:
        """Write one line; returns its height."""
        size = int(self.rng.choice([9, 11, 12, 13, 14, 16, 18, 22, 28, 40, 64]))
        path = font_folder() / f"{self.rng.choice(_FONTS)}.ttf"
        font = ImageFont.truetype(str(path), size)
        letters = self.rng.choice(list(_LETTERS), int(self.rng.integers(4, 60)))
        spaces = self.rng.random(letters.size) < 0.17
        text = "".join(np.where(spaces, " ", letters))
        self.pen.text(
            (x, y), text, fill=self.ink if self.rng.random() < 0.8 else self._any(), font=font
        )
        return 1.3 * size

    def _shapes(self) -> None:
        for _ in range(int(self.rng.integers(4, 16))):
            (x, y), radius = self._place(), float(self.rng.integers(3, 120)) * self.factor
            fill = self._any() if self.rng.random() < 0.6 else None
            outline = self.ink if fill is None or self.rng.random() < 0.4 else None
            box = (
                x - radius,
                y - radius * float(self.rng.uniform(0.3, 1.0)),
                x + radius,
                y + radius,
            )
            match int(self.rng.integers(0, 4)):
                case 0:
                    self.pen.ellipse(box, fill=fill, outline=outline, width=self._width())
                case 1:
                    self.pen.rectangle(box, fill=fill, outline=outline, width=self._width())
                case 2:
                    corners = [self._place() for _ in range(int(self.rng.integers(3, 6)))]
                    self.pen.polygon(corners, fill=fill, outline=outline, width=self._width())
                case _:
                    self.pen.line([(x, y), self._place()], fill=self.ink, width=self._width())

    def _windows(self) -> None:
        """Windows, rules and grids, aligned to pixels as programs draw them."""
        f = self.factor
        for _ in range(int(self.rng.integers(3, 9))):
            left, top = (int(value) * f for value in self.rng.integers(0, SIDE - 60, 2))
            right, bottom = (
                start + int(value) * f
                for start, value in zip((left, top), self.rng.integers(40, 260, 2), strict=True)
            )
            ground = self._colour(light=bool(self.rng.random() < 0.7))
            self.pen.rectangle((left, top, right, bottom), fill=ground, outline=self.ink, width=f)
            step = int(self.rng.choice([2, 3, 6, 10, 16, 24])) * f
            if self.rng.random() < 0.5:
                for y in range(top + step, bottom, step):
                    self.pen.line([(left, y), (right, y)], fill=self.ink, width=f)
            if self.rng.random() < 0.3:
                for x in range(left + step, right, step):
                    self.pen.line([(x, top), (x, bottom)], fill=self.ink, width=f)

    def _curves(self) -> None:
        side = SIDE * self.factor
        for _ in range(int(self.rng.integers(2, 9))):
            turns, phase, height = self.rng.uniform((0.5, 0.0, 0.05), (12.0, 6.3, 0.45))
            middle = float(self.rng.uniform(0.1, 0.9))
            points = [
                (x, side * (middle + height * math.sin(phase + turns * 6.3 * x / side)))
                for x in range(0, side + self.factor, self.factor)
            ]
            self.pen.line(points, fill=self._any(), width=self._width())
