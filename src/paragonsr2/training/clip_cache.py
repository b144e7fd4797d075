"""Crops of clips of :mod:`paragonsr2.training.video_degradation`, encoded once and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import TrainingError
from paragonsr2.training.config import CodecConfig
from paragonsr2.training.data import Picture, Place, shares
from paragonsr2.training.pictures import read_array, save_array
from paragonsr2.training.video_degradation import (
    LEAST_SIDE,
    ClipPlan,
    check_codecs,
    load_av,
    make_clip,
    plan_clip,
)

#: Part of the name of cached clips; raise it when a change makes clips come out different.
CLIP_VERSION = 1


class ClipSampler:
    """Crops of cached clips; each row's random numbers choose the clip and the place in it.

    Args:
        pictures: the originals.
        plans: of the clips.
        clips: the kept frame of each clip, ``(height, width, 3)`` uint8.
    """

    def __init__(
        self, pictures: Sequence[Picture], plans: Sequence[ClipPlan], clips: Sequence[Pixels8]
    ) -> None:
        self.pictures, self.plans, self.clips = pictures, plans, clips

    def __call__(
        self,
        places: Sequence[Place],
        rngs: Sequence[np.random.Generator],
        shared: np.random.Generator,  # noqa: ARG002 - clips share nothing
    ) -> list[tuple[Pixels8, Pixels8]]:
        """LR ``(side, side, 3)`` and HR of clips; only the size of the places counts."""
        return [self._crop(place.side, rng) for place, rng in zip(places, rngs, strict=True)]

    def _crop(self, side: int, rng: np.random.Generator) -> tuple[Pixels8, Pixels8]:
        index = int(rng.integers(len(self.clips)))
        plan = self.plans[index]
        y = int(rng.integers(plan.height - side, endpoint=True))
        x = int(rng.integers(plan.width - side, endpoint=True))
        _, hr = self.pictures[plan.picture].crop(plan.y + y, plan.x + x, side, side)
        return self.clips[index][y : y + side, x : x + side], hr


class ClipCache:
    """Encoded clips on disk, identified by everything that they were made from.

    Args:
        folder: the cache.
        pictures: to make clips of; those with a given LR, or too small, are left out.
        settings: of the encoders.
        scale: of the pictures.
        patch: side of the crops that clips must hold, in low-resolution pixels.
        seed: of the run.

    Raises:
        MissingExtraError: PyAV is not installed.
        TrainingError: an encoder is missing, clips are smaller than crops, or no picture is
            large enough.
    """

    def __init__(
        self,
        folder: Path,
        pictures: Sequence[Picture],
        settings: CodecConfig,
        scale: int,
        patch: int,
        seed: int,
    ) -> None:
        check_codecs(list(settings.mix))
        patch += patch % 2  # sides of clips are even
        if settings.side[0] < patch:
            raise TrainingError(
                f"clips of {settings.side[0]} pixels cannot hold crops of {patch}; raise "
                "degradation.codec.side, or lower data.patch"
            )
        least = max(LEAST_SIDE, patch)
        self.pictures = [p for p in pictures if not p.given and min(p.size) >= least]
        if not self.pictures:
            raise TrainingError(
                f"no training image without given low resolution has {least * scale} pixels on "
                "both sides: too small for clips; take degradation.kind bicubic"
            )
        self.settings, self.seed, self.chances = settings, seed, shares(self.pictures)
        made_from = [(picture.digest, picture.weight) for picture in self.pictures]
        versions = (CLIP_VERSION, load_av().__version__)
        identity = repr((versions, settings.model_dump_json(), scale, seed, made_from))
        self.folder = folder / "clips" / hashlib.sha256(identity.encode()).hexdigest()[:20]

    def build(self, indices: Sequence[int], threads: int, log: Callable[[str], None]) -> None:
        """Encode those of ``indices`` that are missing, in parallel.

        Raises:
            TrainingError: a codec failed.
            OutputError: the cache cannot be written.
        """
        todo = [index for index in indices if self._read(index) is None]
        if not todo:
            return
        log(f"encoding {len(todo)} clips into {self.folder}")
        every = max(1, len(todo) // 10)
        with ThreadPoolExecutor(threads) as pool:
            for done, _ in enumerate(pool.map(self._make, todo), start=1):
                if done % every == 0:
                    log(f"encoded {done}/{len(todo)} clips")

    def sampler(self, count: int) -> ClipSampler:
        """The first ``count`` clips, memory-mapped.

        Raises:
            TrainingError: one was not built.
        """
        clips: list[Pixels8] = []
        for index in range(count):
            clip = self._read(index)
            if clip is None:
                raise TrainingError(f"clip {index} is missing from {self.folder}; restart the run")
            clips.append(clip)
        return ClipSampler(self.pictures, [self._plan(index) for index in range(count)], clips)

    def _plan(self, index: int) -> ClipPlan:
        return plan_clip(index, self.pictures, self.chances, self.settings, self.seed)

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npy"

    def _make(self, index: int) -> None:
        plan = self._plan(index)
        save_array(self._path(index), make_clip(plan, self.pictures[plan.picture]))

    def _read(self, index: int) -> Pixels8 | None:
        """The clip; None if it is missing, damaged or not of the planned size."""
        clip, plan = read_array(self._path(index)), self._plan(index)
        fits = clip is not None and clip.shape == (plan.height, plan.width, 3)
        return clip if fits else None
