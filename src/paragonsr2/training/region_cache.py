"""Degraded regions of pictures, made once, kept on disk and cut into crops."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import TrainingError
from paragonsr2.training.data import Picture, Place, shares
from paragonsr2.training.pictures import read_array, save_array


class Region(Protocol):
    """A window of a picture, in low-resolution pixels."""

    @property
    def picture(self) -> int:
        """Index of the picture."""
        ...

    @property
    def y(self) -> int:
        """First row."""
        ...

    @property
    def x(self) -> int:
        """First column."""
        ...

    @property
    def height(self) -> int:
        """Number of rows."""
        ...

    @property
    def width(self) -> int:
        """Number of columns."""
        ...


class RegionSampler:
    """Crops of cached regions; each row's random numbers choose the region and the place in it.

    Args:
        pictures: the originals.
        plans: of the regions.
        regions: each degraded, ``(height, width, 3)`` uint8.
    """

    def __init__(
        self, pictures: Sequence[Picture], plans: Sequence[Region], regions: Sequence[Pixels8]
    ) -> None:
        self.pictures, self.plans, self.regions = pictures, plans, regions

    def __call__(
        self,
        places: Sequence[Place],
        rngs: Sequence[np.random.Generator],
        shared: np.random.Generator,  # noqa: ARG002 - regions share nothing
    ) -> list[tuple[Pixels8, Pixels8]]:
        """LR ``(side, side, 3)`` and HR of regions; only the size of the places counts."""
        return [self._crop(place.side, rng) for place, rng in zip(places, rngs, strict=True)]

    def _crop(self, side: int, rng: np.random.Generator) -> tuple[Pixels8, Pixels8]:
        index = int(rng.integers(len(self.regions)))
        plan = self.plans[index]
        y = int(rng.integers(plan.height - side, endpoint=True))
        x = int(rng.integers(plan.width - side, endpoint=True))
        _, hr = self.pictures[plan.picture].crop(plan.y + y, plan.x + x, side, side)
        return self.regions[index][y : y + side, x : x + side], hr


class RegionCache(ABC):
    """Degraded regions on disk, identified by everything that they were made from.

    Args:
        folder: of these regions; a hash of what they are made from is added.
        pictures: to cut from.
        made_from: whatever else decides how a region comes out.
        scale: of the pictures.
        seed: of the run.
    """

    #: What a region is called in messages, and what is done to make it.
    noun, verb = "region", "degrading"

    def __init__(
        self,
        folder: Path,
        pictures: Sequence[Picture],
        made_from: Sequence[object],
        scale: int,
        seed: int,
    ) -> None:
        self.pictures, self.seed, self.chances = pictures, seed, shares(pictures)
        contents = [(picture.digest, picture.weight) for picture in pictures]
        identity = repr((*made_from, scale, seed, contents))
        self.folder = folder / hashlib.sha256(identity.encode()).hexdigest()[:20]

    @abstractmethod
    def plan(self, index: int) -> Region:
        """What region ``index`` is cut from; always the same."""

    @abstractmethod
    def make(self, index: int) -> Pixels8:
        """Region ``index``, ``(height, width, 3)``; always the same."""

    def build(self, indices: Sequence[int], threads: int, log: Callable[[str], None]) -> None:
        """Make those of ``indices`` that are missing, in parallel.

        Raises:
            TrainingError: one could not be made.
            OutputError: the cache cannot be written.
        """
        todo = [index for index in indices if self._read(index) is None]
        if not todo:
            return
        log(f"{self.verb} {len(todo)} {self.noun}s into {self.folder}")
        every = max(1, len(todo) // 10)
        with ThreadPoolExecutor(threads) as pool:
            for done, _ in enumerate(pool.map(self._keep, todo), start=1):
                if done % every == 0:
                    log(f"{self.verb}: {done}/{len(todo)} {self.noun}s")

    def sampler(self, count: int) -> RegionSampler:
        """The first ``count`` regions, memory-mapped.

        Raises:
            TrainingError: one was not built.
        """
        regions: list[Pixels8] = []
        for index in range(count):
            region = self._read(index)
            if region is None:
                raise TrainingError(
                    f"{self.noun} {index} is missing from {self.folder}; restart the run"
                )
            regions.append(region)
        return RegionSampler(self.pictures, [self.plan(index) for index in range(count)], regions)

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npy"

    def _keep(self, index: int) -> None:
        save_array(self._path(index), self.make(index))

    def _read(self, index: int) -> Pixels8 | None:
        """The region; None if it is missing, damaged or not of the planned size."""
        region, plan = read_array(self._path(index)), self.plan(index)
        fits = region is not None and region.shape == (plan.height, plan.width, 3)
        return region if fits else None
