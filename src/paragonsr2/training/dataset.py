"""From the sections ``[data]`` and ``[degradation]`` to a sampler of crops and a validation set."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import psutil

from paragonsr2.errors import TrainingError
from paragonsr2.measure.quality import shrink
from paragonsr2.training.blind_cache import BlindCache
from paragonsr2.training.clip_cache import ClipCache
from paragonsr2.training.config import DataConfig, Folder, RunConfig
from paragonsr2.training.config_file import check_folders
from paragonsr2.training.data import CropSampler, Degradation, Pair, Picture
from paragonsr2.training.degradation_config import DegradationConfig
from paragonsr2.training.degradations import BlindDegradation, margin
from paragonsr2.training.drawn import SIDE, VALIDATION_SEED, draw_pair, draw_picture
from paragonsr2.training.pictures import (
    Report,
    Source,
    Store,
    choose_storage,
    list_sources,
    load_pictures,
)
from paragonsr2.training.processes import Processes
from paragonsr2.training.region_cache import RegionCache
from paragonsr2.training.validation import ValidationSet
from paragonsr2.training.video_degradation import degrade_whole


def prepare(
    data: DataConfig,
    degradation: DegradationConfig,
    run: RunConfig,
    scale: int,
    *,
    log: Callable[[str], None],
    processes: Processes | None = None,
) -> tuple[CropSampler, ValidationSet]:
    """Check the whole training set, load what is good, and make what is made only once.

    Unusable pictures are logged and listed in ``data.json`` and ``data.md`` in ``run.output``.
    Validation pictures must all be good; otherwise scores could not be compared.

    Args:
        data: which pictures, and how they are cut.
        degradation: how low resolution is made.
        run: seed, threads and output folder.
        scale: of the network.
        log: receives one line of text now and then.
        processes: that train together.

    Raises:
        ConfigError: a folder does not exist.
        MissingExtraError: the degradation, or drawing, needs a library that is not installed.
        TrainingError: nothing to train on, a bad validation picture, or a missing encoder.
        OutputError: the report or the cache cannot be written.
    """
    check_folders(data)
    return _Preparation(data, degradation, run, scale, log, processes or Processes()).prepare()


class _Preparation:
    """Steps of :func:`prepare`, which share its arguments."""

    def __init__(
        self,
        data: DataConfig,
        degradation: DegradationConfig,
        run: RunConfig,
        scale: int,
        log: Callable[[str], None],
        processes: Processes,
    ) -> None:
        self.data, self.settings, self.run, self.scale = data, degradation, run, scale
        self.log, self.processes = log, processes
        self.cache = data.cache or run.output / "cache"
        self.threads = run.threads or os.cpu_count() or 1

    def prepare(self) -> tuple[CropSampler, ValidationSet]:
        """See :func:`prepare`."""
        pictures = self._training_pictures()
        photographs = self._validation_pictures(self.data.val)
        known = {picture.digest.partition("_")[0] for picture in pictures}  # shrunk or not
        if seen := [pair.name for pair in photographs if pair.digest in known]:
            self.log(
                f"warning: {len(seen)} validation images are trained on, too ({seen[0]}): "
                "scores will flatter"
            )
        degradation, degrade = self._degradation(pictures)
        val = ValidationSet(
            [pair if pair.given else degrade(pair) for pair in photographs],
            [degrade(pair) for pair in self._drawn(self.data.val_drawn, VALIDATION_SEED)],
        )
        sampler = CropSampler(
            pictures, self.scale, self.data.patch, self.run.seed, degradation, self.settings.clean,
            self.data.grain,
        )  # fmt: skip
        return sampler, val

    def _training_pictures(self) -> list[Picture]:
        """Photographs and drawn pictures; those that are left out are reported."""
        data, processes = self.data, self.processes
        listed = [list_sources(folder, self.scale) for folder in data.folders]
        sources = [source for files, _ in listed for source in files]
        unpaired = [problem for _, problems in listed for problem in problems]
        self.log(f"reading {len(sources)} training images")
        least = self._least()
        store = self._store(sources, least)
        pictures, rejected = load_pictures(sources, store, self.threads)
        if data.drawn and SIDE // self.scale < least:
            raise TrainingError(
                f"drawn pictures have {SIDE // self.scale} pixels a side in low resolution, but "
                f"crops need {least}; lower data.patch, or set data.drawn = 0"
            )
        pictures += [replace(pair, weight=data.drawn_weight) for pair in self._drawn_to_train_on()]
        area = sum(height * width for height, width in (picture.size for picture in pictures))
        found = len(sources) + len(unpaired) + data.drawn
        megapixels = area * self.scale**2 / 1e6
        report = Report(found, len(pictures), megapixels, store.storage, unpaired + rejected)
        if processes.rank == 0:
            report.write(self.run.output)
        if not pictures:
            first = report.problems[0]
            raise TrainingError(
                f"none of {report.found} images can be trained on: {report.reasons()}; "
                f"{first.path.name}: {first.detail}"
            )
        self.log(f"training on {report.line()}")
        return pictures

    def _least(self) -> int:
        """Smallest side of a training picture, in low-resolution pixels."""
        if self.settings.kind != "blind":
            return self.data.largest_patch
        return self.data.largest_patch + 2 * margin(self.settings.blind, self.scale)

    def _store(self, sources: Sequence[Source], least: int) -> Store:
        storage = self.data.storage
        if storage == "auto":
            # Half of what is available: training itself needs memory, too.
            available_gb = psutil.virtual_memory().available / 2e9
            limit = min(self.data.memory_gb, available_gb) / self.processes.world
            storage = choose_storage(sources, self.scale, limit)
        return Store(self.scale, storage, self.cache, self.data.cache_lr, least)

    def _drawn(self, count: int, seed: int) -> list[Pair]:
        drawn = ((index, draw_picture(index, seed)) for index in range(count))
        return [Pair(f"drawn {index}", hr, shrink(hr, self.scale)) for index, hr in drawn]

    def _drawn_to_train_on(self) -> list[Pair]:
        """One half shrunk, as photographs are; the other drawn small, as screenshots are."""
        count, seed, scale = self.data.drawn, self.run.seed, self.scale
        twice = ((index, *draw_pair(index, seed, scale)) for index in range(count // 2))
        pairs = [Pair(f"drawn twice {index}", hr, lr) for index, hr, lr in twice]
        return self._drawn(count - count // 2, seed) + pairs

    def _validation_pictures(self, folder: Folder) -> list[Pair]:
        sources, problems = list_sources(folder, self.scale)
        self.log(f"reading {len(sources)} validation images")
        store = Store(self.scale, "memory", self.cache)
        pictures, rejected = load_pictures(sources, store, self.threads)
        if problems or rejected:
            first = (problems + rejected)[0]
            raise TrainingError(f"validation image {first.path} is {first.kind}: {first.detail}")
        return [picture for picture in pictures if isinstance(picture, Pair)]

    def _degradation(
        self, pictures: Sequence[Picture]
    ) -> tuple[Degradation | None, Callable[[Pair], Pair]]:
        """How crops are degraded, if at all, and how a whole validation picture is."""
        settings = self.settings
        if settings.kind == "codec":
            return self._clips(pictures), lambda pair: degrade_whole(pair, settings.codec)
        if settings.kind == "blind":
            blind = BlindDegradation(settings.blind, self.scale)
            return self._regions(pictures, blind) or blind, blind.whole
        return None, lambda pair: pair

    def _clips(self, pictures: Sequence[Picture]) -> Degradation:
        patch, codec = self.data.largest_patch, self.settings.codec
        cache = ClipCache(self.cache, pictures, codec, self.scale, patch, self.run.seed)
        return self._built(cache, self.settings.cached_clips)

    def _regions(self, pictures: Sequence[Picture], blind: BlindDegradation) -> Degradation | None:
        count = self.settings.cached_regions
        if not count:
            return None
        patch, seed = self.data.largest_patch, self.run.seed
        return self._built(BlindCache(self.cache, pictures, blind, patch, seed), count)

    def _built(self, cache: RegionCache, count: int) -> Degradation:
        """Each process makes its share; then all see all."""
        mine = range(self.processes.rank, count, self.processes.world)
        cache.build(mine, self.threads, self.log)
        self.processes.wait()
        return cache.sampler(count)
