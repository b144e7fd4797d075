"""Whether a result can be right, seen from its brightness and range alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.errors import WrongResultError
from paragonsr2.weights.source import ModelSource

#: Most by which the mean of a channel may change, of 255. More for pictures that are all border,
#: and for models that restore: they take tiny text for the marks of an encoder and thin it.
MEAN, MEAN_OF_TINY, MEAN_RESTORED = 8.0, 32.0, 16.0

#: Side below which a picture is all border, in pixels.
_TINY = 8

# What counts as more than one colour in the input, and as one in the result, of 255.
_VARIED, _FLAT = 8.0, 1.0


class ResultCheck:
    """Compares an image with its enlargement while the tiles of both pass by.

    A result is wrong if it is all one colour and its input is not, or if the mean of a channel is
    off by more than it may be, with and without clipping to 0..1: where sharp dots are clipped
    the mean changes rightly, and does not before.

    Args:
        source: the model.
        height, width: of the input, in pixels.
    """

    def __init__(self, source: ModelSource, height: int, width: int) -> None:
        self._name = source.name
        usual = MEAN_RESTORED if source.restores else MEAN
        self._allowed = usual if min(height, width) >= _TINY else MEAN_OF_TINY
        self._given, self._made, self._clipped = _Statistics(), _Statistics(), _Statistics()

    def add(self, given: FloatNCHW, made: FloatNCHW, *, has_alpha: bool) -> None:
        """Look at a tile.

        Args:
            given: ``(1, C, H, W)`` of the input, without its surroundings.
            made: its enlargement, not clipped.
            has_alpha: the last channel is alpha. Invisible pixels may have any colour.
        """
        if has_alpha:
            given, made = (x[:, :-1] * x[:, -1:] for x in (given, made))
        self._given.add_clipped(given)
        part = self._made.add(made)
        self._clipped.add_clipped(made, part)

    def finish(self) -> None:
        """Judge the whole.

        Raises:
            WrongResultError: the result cannot be right.
        """
        given, clipped = self._given, self._clipped
        if given.range.max() > _VARIED and clipped.range.max() < _FLAT:
            colour = ", ".join(f"{value:.0f}" for value in clipped.mean)
            raise WrongResultError(self._message(f"is all one colour ({colour} of 255)"))
        off = np.minimum(np.abs(clipped.mean - given.mean), np.abs(self._made.mean - given.mean))
        worst = int(off.argmax())
        if off[worst] > self._allowed:
            raise WrongResultError(
                self._message(
                    f"has a mean of {clipped.mean[worst]:.0f} of 255 in channel {worst + 1}, and "
                    f"the input has {given.mean[worst]:.0f}"
                )
            )

    def _message(self, what: str) -> str:
        return (
            f"the result of {self._name} {what}, so the model or its engine is broken; try another "
            "--backend, --device or --precision, or keep the result with --unchecked"
        )


class _Part(NamedTuple):
    """Sum, least and largest value of each channel of a tile, and its pixels."""

    total: Any
    low: Any
    high: Any
    pixels: int

    @classmethod
    def of(cls, x: FloatNCHW) -> _Part:
        low, high = x.min(axis=(0, 2, 3)), x.max(axis=(0, 2, 3))
        return cls(_total(x), low, high, x.shape[2] * x.shape[3])


def _total(x: FloatNCHW) -> Any:
    return x.sum(axis=(0, 2, 3), dtype=np.float64)


class _Statistics:
    """Mean and range of each channel, of 255."""

    def __init__(self) -> None:
        self._sum: Any = 0.0
        self._low: Any = np.inf
        self._high: Any = -np.inf
        self._count = 0

    def add(self, x: FloatNCHW) -> _Part:
        return self._take(_Part.of(x))

    def add_clipped(self, x: FloatNCHW, part: _Part | None = None) -> None:
        """Add ``x`` clipped to 0..1; ``part`` is what is known of it as it is."""
        known = part or _Part.of(x)
        low, high = known.low.clip(0.0, 1.0), known.high.clip(0.0, 1.0)
        unchanged = np.array_equal(low, known.low) and np.array_equal(high, known.high)
        total = known.total if unchanged else _total(x.clip(0.0, 1.0))
        self._take(_Part(total, low, high, known.pixels))

    def _take(self, part: _Part) -> _Part:
        self._sum = self._sum + part.total
        self._low = np.minimum(self._low, part.low)
        self._high = np.maximum(self._high, part.high)
        self._count += part.pixels
        return part

    @property
    def mean(self) -> Any:
        return 255.0 * self._sum / self._count

    @property
    def range(self) -> Any:
        return 255.0 * (self._high - self._low)
