"""From the [data] and [degradation] sections to a sampler of crops and validation pairs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paragonsr2.errors import TrainingError
from paragonsr2.measure.quality import shrink
from paragonsr2.training.clip_cache import ClipCache
from paragonsr2.training.config import Folder, TrainConfig
from paragonsr2.training.data import CropSampler, Degradation, Pair, Picture
from paragonsr2.training.degradations import MARGIN, BlindDegradation
from paragonsr2.training.drawn import SIDE, draw_picture
from paragonsr2.training.pictures import (
    Report,
    Store,
    choose_storage,
    list_sources,
    load_pictures,
)
from paragonsr2.training.video_degradation import degrade_whole


@dataclass(frozen=True)
class Processes:
    """The share of this process among those that train together.

    Attributes:
        rank: of this one.
        world: how many there are.
        wait: returns when all have called it.
    """

    rank: int = 0
    world: int = 1
    wait: Callable[[], object] = lambda: None


def prepare(
    config: TrainConfig, log: Callable[[str], None], processes: Processes | None = None
) -> tuple[CropSampler, list[Pair]]:
    """Check the whole training set, keep what is good, and make what is made once.

    A report of what is left out is logged, and written as ``data.json`` and ``data.md`` into
    ``run.output``. Validation pictures must all be good, or scores could not be compared.

    Raises:
        MissingExtraError: the degradation, or drawing, needs a library that is not installed.
        TrainingError: nothing to train on, a bad validation picture, or an encoder that is
            missing.
        OutputError: the report or the cache cannot be written.
    """
    processes = processes or Processes()
    data, settings, scale = config.data, config.degradation, config.network.scale
    pictures, report = _training_pictures(config, processes)
    if processes.rank == 0:
        report.write(config.run.output)
    if not pictures:
        first = report.problems[0]
        raise TrainingError(
            f"none of {report.found} images can be trained on: {report.reasons()}; "
            f"{first.path.name}: {first.detail}"
        )
    log(f"training on {report.line()}")
    degradation: Degradation | None = None
    val = _validation_pairs(data.val, scale, _cache(config), _threads(config))
    seen = {picture.digest.partition("_")[0] for picture in pictures}  # shrunk or not
    if known := [pair.name for pair in val if pair.digest in seen]:
        log(f"{len(known)} validation images are trained on, too ({known[0]}): scores will flatter")
    if settings.kind == "codec":
        seed = config.run.seed
        cache = ClipCache(_cache(config), pictures, settings.codec, scale, data.largest_patch, seed)
        mine = range(processes.rank, settings.cached_clips, processes.world)
        cache.build(mine, _threads(config), log)
        processes.wait()
        degradation = cache.sampler(settings.cached_clips)
        val = [pair if pair.given else degrade_whole(pair, settings.codec) for pair in val]
    elif settings.kind == "blind":
        degradation = BlindDegradation(settings.blind, scale)
        val = [pair if pair.given else degradation.whole(pair) for pair in val]
    sampler = CropSampler(pictures, scale, data.patch, config.run.seed, degradation, settings.clean)
    return sampler, val


def _cache(config: TrainConfig) -> Path:
    return config.data.cache or config.run.output / "cache"


def _threads(config: TrainConfig) -> int:
    return config.run.threads or os.cpu_count() or 1


def _training_pictures(config: TrainConfig, processes: Processes) -> tuple[list[Picture], Report]:
    data, scale = config.data, config.network.scale
    listed = [list_sources(folder, scale) for folder in data.folders]
    sources = [source for files, _ in listed for source in files]
    problems = [problem for _, lacking in listed for problem in lacking]
    storage = data.storage
    if storage == "auto":
        storage = choose_storage(sources, scale, data.memory_gb / processes.world)
    least = data.largest_patch + (2 * MARGIN if config.degradation.kind == "blind" else 0)
    store = Store(scale, storage, _cache(config), data.cache_lr, least)
    pictures, rejected = load_pictures(sources, store, _threads(config))
    problems += rejected
    if data.drawn and SIDE // scale < least:
        raise TrainingError(
            f"drawn pictures have {SIDE // scale} pixels a side in low resolution, and crops need "
            f"{least}; lower data.patch, or set data.drawn = 0"
        )
    for index in range(data.drawn):
        hr = draw_picture(index, config.run.seed)
        pair = Pair(f"drawn {index}", hr, shrink(hr, scale), data.drawn_weight)
        pictures.append(pair)
    area = sum(height * width for height, width in (picture.size for picture in pictures))
    found = len(sources) + len(problems) - len(rejected) + data.drawn
    report = Report(found, len(pictures), area * scale**2 / 1e6, storage, problems)
    return pictures, report


def _validation_pairs(folder: Folder, scale: int, cache: Path, threads: int) -> list[Pair]:
    sources, problems = list_sources(folder, scale)
    pictures, rejected = load_pictures(sources, Store(scale, "memory", cache), threads)
    pairs = [picture for picture in pictures if isinstance(picture, Pair)]
    if problems or rejected:
        first = (problems + rejected)[0]
        raise TrainingError(f"validation image {first.path} is {first.kind}: {first.detail}")
    return pairs
