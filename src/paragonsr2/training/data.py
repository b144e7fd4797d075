"""Training crops: each batch is a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
import numpy.typing as npt

from paragonsr2.arrays.pixels import Pixels8


class Picture(Protocol):
    """A picture that crops are cut from."""

    @property
    def name(self) -> str:
        """Name of the file."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the low resolution."""
        ...

    @property
    def weight(self) -> float:
        """How often a pixel of it is sampled, relative to other pictures."""
        ...

    @property
    def given(self) -> bool:
        """Whether the low resolution came as a file; then it is not degraded further."""
        ...

    @property
    def digest(self) -> str:
        """Hash of the content of its file or files."""
        ...

    def crop(self, y: int, x: int, height: int, width: int) -> tuple[Pixels8, Pixels8]:
        """LR and HR ``(H, W, 3)`` of one window, given in low-resolution pixels."""
        ...


@dataclass(frozen=True)
class Pair:
    """A :class:`Picture` as two arrays, ``(H, W, 3)`` uint8, in memory or memory-mapped.

    ``hr`` is exactly scale times as large as ``lr``.
    """

    name: str
    hr: Pixels8
    lr: Pixels8
    weight: float = 1.0
    given: bool = False
    digest: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the low resolution."""
        return self.lr.shape[0], self.lr.shape[1]

    def crop(self, y: int, x: int, height: int, width: int) -> tuple[Pixels8, Pixels8]:
        """LR and HR of one window, given in low-resolution pixels."""
        scale = self.hr.shape[0] // self.lr.shape[0]
        rows = slice(y * scale, (y + height) * scale)
        columns = slice(x * scale, (x + width) * scale)
        return self.lr[y : y + height, x : x + width], self.hr[rows, columns]


@dataclass(frozen=True)
class Place:
    """A square window of a picture, in low-resolution pixels."""

    picture: Picture
    y: int
    x: int
    side: int


#: Number of rows of a batch that are degraded together.
GROUP = 8
#: Every how many rows one gets noise, where a run asks for it.
GRAINY = 4


class Degradation(Protocol):
    """Makes the crops of some rows of a batch."""

    def __call__(
        self,
        places: Sequence[Place],
        rngs: Sequence[np.random.Generator],
        shared: np.random.Generator,
    ) -> list[tuple[Pixels8, Pixels8]]:
        """LR ``(side, side, 3)`` and HR of each place.

        Args:
            places: of one group, all of one size; a degradation may use other places instead.
            rngs: one per place; with ``shared`` they decide everything.
            shared: the same for all rows of the group, whichever of them are requested.
        """
        ...


class CropSampler:
    """Random crops, flipped and rotated; pictures are sampled by area times weight.

    There is no sampler state to save: crop ``row`` of step ``step`` depends only on the seed and
    these two numbers, so that resumed runs and runs on several processes see the same crops.

    Args:
        pictures: all at least ``patch`` on each low-resolution side.
        scale: of the pictures.
        patch: side of a low-resolution crop, unless a batch asks for another.
        seed: of the run.
        degradation: makes the low resolution; None takes that of the pictures.
        clean: probability that a crop is not degraded.
        grain: largest deviation, of 255, of the noise that one of :data:`GRAINY` low-resolution
            crops gets.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        scale: int,
        patch: int,
        seed: int,
        degradation: Degradation | None = None,
        clean: float = 0.0,
        grain: float = 0.0,
    ) -> None:
        self.pictures, self.scale, self.patch, self.seed = pictures, scale, patch, seed
        self.degradation, self.clean, self.grain = degradation, clean, grain
        self.cumulative = np.cumsum(shares(pictures))

    def batch(self, step: int, rows: range, patch: int | None = None) -> tuple[Pixels8, Pixels8]:
        """Crops ``rows`` of step ``step``.

        Args:
            step: of the run.
            rows: of the batch.
            patch: side of a low-resolution crop; None takes the sampler's.

        Returns:
            LR ``(B, patch, patch, 3)`` and HR ``(B, patch * scale, patch * scale, 3)``, uint8.
        """
        side = patch or self.patch
        big = side * self.scale
        lr = np.empty((len(rows), side, side, 3), dtype=np.uint8)
        hr = np.empty((len(rows), big, big, 3), dtype=np.uint8)
        draws = generator(self.seed, 0, 0, step).random((rows.stop, 4))[rows.start :]
        places = [self._place(side, *draw[:3]) for draw in draws]
        for group, indices in groupby(range(len(rows)), lambda index: rows[index] // GROUP):
            mine = list(indices)
            rngs = [generator(self.seed, 1, rows[index], step) for index in mine]
            shared = generator(self.seed, 4, group, step)
            crops = self._crops([places[index] for index in mine], rngs, shared)
            for index, pair in zip(mine, crops, strict=True):
                turn = int(draws[index, 3] * 8)
                lr[index], hr[index] = (_turned(crop, turn) for crop in pair)
        if self.grain:
            for index, row in enumerate(rows):
                if row % GRAINY == 0:
                    lr[index] = _grainy(lr[index], self.grain, generator(self.seed, 8, row, step))
        return lr, hr

    def _place(self, side: int, which: float, down: float, right: float) -> Place:
        """A window, from three numbers in 0..1."""
        drawn = int(np.searchsorted(self.cumulative, which, side="right"))
        picture = self.pictures[min(drawn, len(self.pictures) - 1)]
        height, width = picture.size
        y, x = int(down * (height - side + 1)), int(right * (width - side + 1))
        return Place(picture, y, x, side)

    def _crops(
        self,
        places: list[Place],
        rngs: list[np.random.Generator],
        shared: np.random.Generator,
    ) -> list[tuple[Pixels8, Pixels8]]:
        made = dict[int, tuple[Pixels8, Pixels8]]()
        if self.degradation is not None:
            chosen = [
                index
                for index, (place, rng) in enumerate(zip(places, rngs, strict=True))
                if not (place.picture.given or rng.random() < self.clean)
            ]
            if chosen:
                some, theirs = [places[i] for i in chosen], [rngs[i] for i in chosen]
                made = dict(zip(chosen, self.degradation(some, theirs, shared), strict=True))
        return [
            made.get(index) or place.picture.crop(place.y, place.x, place.side, place.side)
            for index, place in enumerate(places)
        ]


def _grainy(lr: Pixels8, grain: float, rng: np.random.Generator) -> Pixels8:
    """``lr`` with the noise of a camera, of a deviation up to ``grain``."""
    noisy = lr + rng.normal(0.0, rng.uniform(0.0, grain), lr.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def generator(seed: int, purpose: int, row: int, step: int) -> np.random.Generator:
    """An independent random generator for each purpose, row and step of a run."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, purpose, row, step]))


def shares(pictures: Sequence[Picture]) -> npt.NDArray[np.float64]:
    """Probability of each picture, by area times weight: ``(N,)`` of sum 1."""
    area = np.array([p.weight * p.size[0] * p.size[1] for p in pictures], dtype=np.float64)
    return area / area.sum()


def _turned(crop: Pixels8, code: int) -> Pixels8:
    """One of the eight flips and rotations of a square; ``code`` is 0..7."""
    if code & 1:
        crop = crop[::-1]
    if code & 2:
        crop = crop[:, ::-1]
    return crop.swapaxes(0, 1) if code & 4 else crop
