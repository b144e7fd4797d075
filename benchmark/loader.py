"""Measure the data loader: crops per second, and its effect on training speed.

Writes ``results/speed/training_loader.json``: crops per second of one thread's processor time, for
each kind of storage and degradation; and training steps per second with new batches and with one
reused batch. The latter two alternate in chunks, so that both see the same load of the machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from torch import Tensor

from paragonsr2.measure.machine import write_result
from paragonsr2.training.config import TrainConfig
from paragonsr2.training.config_file import load_config
from paragonsr2.training.dataset import prepare
from paragonsr2.training.loop import Trainer
from paragonsr2.training.pictures import list_images
from paragonsr2.training.prefetch import prefetch

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "speed" / "training_loader.json"
#: Overrides of the configuration for each row of the result.
LOADERS = {
    "bicubic, decoded in memory": ["data.storage=memory"],
    "bicubic, decoded and memory-mapped": ["data.storage=mapped"],
    "bicubic, each crop decoded from its file": ["data.storage=files"],
    "blind, decoded in memory": ["data.storage=memory", "degradation.kind=blind"],
    "codec, from cached clips": [
        "data.storage=memory",
        "degradation.kind=codec",
        "degradation.cached_clips=40",
    ],
}


def samples_per_second(config: TrainConfig, seconds: float) -> float:
    """Crops per second of processor time, which excludes other programs."""
    sampler, _ = prepare(
        config.data, config.degradation, config.run, config.network.scale, log=lambda _: None
    )
    rows, made = range(config.data.batch), 0
    with closing(
        prefetch(lambda step: sampler.batch(step, rows), 0, config.data.workers)
    ) as batches:
        for _ in range(2 * config.data.workers + 1):  # batches made in advance do not count
            next(batches)
        started = time.process_time()
        while time.process_time() - started < seconds:
            made += len(next(batches)[0])
        return made / (time.process_time() - started)


def steps_per_second(trainer: Trainer, batches: Iterator[tuple[Tensor, Tensor]], n: int) -> float:
    """Training steps per second over ``n`` steps."""
    started = time.perf_counter()
    for _ in range(n):
        trainer.train_step(*next(batches))
    return n / (time.perf_counter() - started)


def training(config: TrainConfig, chunks: int, steps: int) -> tuple[float, float]:
    """Steps per second with new batches, and with one reused batch."""
    trainer = Trainer(config)
    sampler, _ = trainer.prepare_data()
    with closing(trainer.batches(sampler)) as loading:
        same = next(loading)
        without = iter(lambda: same, None)
        steps_per_second(trainer, loading, steps)  # warm-up
        pairs = [
            (steps_per_second(trainer, loading, steps), steps_per_second(trainer, without, steps))
            for _ in range(chunks)
        ]
    fresh, reused = (float(np.median(column)) for column in zip(*pairs, strict=True))
    return fresh, reused


def link_images(config: TrainConfig, folder: Path, count: int) -> int:
    """Link the first ``count`` training images into ``folder``; returns how many there were."""
    found = [image for train in config.data.train for image in list_images(train.path)]
    folder.mkdir()
    for image in found[:count]:
        (folder / image.name).symlink_to(image.resolve())
    return min(count, len(found))


def loader_rates(path: Path, overrides: list[str], seconds: float) -> dict[str, float]:
    """Crops per second of processor time for every row of :data:`LOADERS`."""
    rates: dict[str, float] = {}
    for label, changes in LOADERS.items():
        config = load_config(path, [*overrides, *changes])
        rates[label] = round(samples_per_second(config, seconds), 1)
        print(f"{label}: {rates[label]} crops/s", flush=True)
    return rates


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", default=None)
    parser.add_argument("--images", type=int, default=40, help="training images to use")
    parser.add_argument("--seconds", type=float, default=5.0, help="processor seconds per loader")
    parser.add_argument("--chunks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40, help="steps per chunk")
    options = parser.parse_args()
    path = options.config or ROOT / "configs" / "realtime_x2_fidelity.toml"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = link_images(load_config(path), folder / "images", options.images)
        overrides = [f"run.output={folder}/run", f"data.cache={folder}/cache"]
        overrides += ["data.cache_lr=true", f'data.train=["{folder}/images"]']
        rates = loader_rates(path, overrides, options.seconds)
        config = load_config(path, overrides)
        fresh, reused = training(config, options.chunks, options.steps)
    print(f"with loading {fresh:.2f} steps/s, without {reused:.2f}, ratio {fresh / reused:.3f}")
    write_result(
        RESULT,
        {
            "config": path.name,
            "images": images,
            "patch": config.data.patch,
            "workers": config.data.workers,
            "load_average": round(os.getloadavg()[0], 1),
            "samples_per_second_of_a_thread": rates,
            "steps_per_second": {"with_loading": fresh, "without_loading": reused},
            "ratio": round(fresh / reused, 4),
        },
    )


if __name__ == "__main__":
    main()
