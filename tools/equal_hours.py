"""Compare ways to train by what they reach in the same processor time.

    python tools/equal_hours.py configs/hours/photo_blocks.toml

A plan names a configuration, the seconds of processor time that each run has, and the runs: what
they change of the configuration, and of the variant's row in the table of the family. The learning
rate follows the time instead of the step, so that a slow candidate is not cut off at a high rate.
Every run starts from nothing. Writes ``results/decisions/hours_PLAN.json``; runs that it already
holds are not repeated. The averaged weights of each run stay in ``runs/hours_PLAN``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare_stages import psnr_of
from measure_borders import INSIDE
from pydantic import BaseModel, ConfigDict, Field

from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import LUMA_WEIGHTS
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.training.config import TrainConfig
from paragonsr2.training.config_file import load_config
from paragonsr2.training.loop import Trainer
from paragonsr2.training.pictures import list_images
from paragonsr2.training.validation import validate
from paragonsr2.variants import VARIANTS
from paragonsr2.weights.store import save_checkpoint

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "decisions"
#: Steps of the warm-up; then the rate falls as a cosine to the configuration's ``final_lr``.
WARMUP = 200


class Table(BaseModel):
    """A table of the plan; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Candidate(Table):
    """One way to train.

    Attributes:
        name: in the result.
        what: it is, in words.
        seeds: one run for each.
        row: what changes in the variant's row.
        overrides: of the configuration.
        sharpest: share of the training photographs to keep, by :func:`sharpness`.
    """

    name: str
    what: str
    seeds: tuple[int, ...] = (0,)
    row: dict[str, Any] = Field(default_factory=dict[str, Any])
    overrides: tuple[str, ...] = ()
    sharpest: float = 1.0


class Plan(Table):
    """A whole comparison.

    Attributes:
        what: is compared.
        config: the configuration, from the root of the repository.
        seconds: of processor time for each run, validations not counted.
        validations: of a run, evenly over its time.
        overrides: of the configuration, for all runs.
        run: each candidate, in this order.
    """

    what: str
    config: Path
    seconds: float
    validations: int = 3
    overrides: tuple[str, ...] = ()
    run: tuple[Candidate, ...]


def sharpness(path: Path) -> float:
    """How much fine detail a picture keeps: its finest octave against the one below, in luma.

    Lossy compression and smoothing take from the finest octave first.
    """
    luma = read_picture(path).pixels[..., :3].astype(np.float32) @ np.float32(LUMA_WEIGHTS)
    octaves = list[float]()
    for _ in range(2):
        height, width = (side - side % 2 for side in luma.shape)
        blocks = luma[:height, :width].reshape(height // 2, 2, width // 2, 2)
        mean = blocks.mean(axis=(1, 3))
        octaves.append(float(np.square(blocks - mean[:, None, :, None]).mean()))
        luma = mean
    return octaves[0] / max(octaves[1], 1e-9)


@contextlib.contextmanager
def sharpest_of(folders: Sequence[Path], share: float) -> Iterator[dict[str, Path]]:
    """Folders of links to the sharpest pictures of ``folders``, all ranked together."""
    if share >= 1.0:
        yield {str(folder): folder for folder in folders}
        return
    files = [file for folder in folders for file in list_images(folder)]
    kept = sorted(files, key=sharpness, reverse=True)[: round(share * len(files))]
    with tempfile.TemporaryDirectory() as made:
        chosen = {str(folder): Path(made, folder.name) for folder in folders}
        for folder in chosen.values():
            folder.mkdir()
        for file in kept:
            (chosen[str(file.parent)] / file.name).symlink_to(file.resolve())
        yield chosen


@contextlib.contextmanager
def changed_row(variant: str, row: dict[str, Any]) -> Iterator[None]:
    """The family with another row for ``variant``."""
    before = VARIANTS[variant]
    changes = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}
    VARIANTS[variant] = replace(before, **changes)
    try:
        yield
    finally:
        VARIANTS[variant] = before


def inside_of(network: ParagonSR2, folder: Path) -> dict[str, float]:
    """PSNR-Y of each picture of ``folder`` without its border, which can hide the order."""
    return {file.stem: psnr_of(network, file, INSIDE) for file in list_images(folder)}


class Run:
    """One run by the clock.

    Args:
        config: of the run; its steps do not count.
        seconds: of processor time.
        validations: evenly over this time.
    """

    def __init__(self, config: TrainConfig, seconds: float, validations: int) -> None:
        self.seconds, self.validations, self.schedule = seconds, validations, config.schedule
        self.trainer = Trainer(config, log=lambda line: print(" ", line, flush=True))

    def rate(self, step: int, spent: float) -> float:
        """Learning rate of a step that begins after ``spent`` seconds."""
        high, low = self.schedule.lr, self.schedule.final_lr
        falling = low + (high - low) * 0.5 * (1.0 + math.cos(math.pi * spent / self.seconds))
        return falling * min(1.0, (step + 1) / WARMUP)

    def train(self) -> dict[str, Any]:
        """Train until the time is over; returns the curve."""
        trainer = self.trainer
        sampler, val = trainer.prepare_data()
        curve = list[dict[str, float]]()
        spent, wall = 0.0, time.monotonic()
        with contextlib.closing(trainer.batches(sampler)) as batches:
            mark = time.process_time()
            for lr, hr in batches:
                rate = self.rate(trainer.step, spent)
                steady = {"lr": rate, "final_lr": rate, "warmup": 0}
                schedule = self.schedule.model_copy(update=steady)
                trainer.config = trainer.config.model_copy(update={"schedule": schedule})
                trainer.train_step(lr, hr)
                trainer.step += 1
                now = time.process_time()
                spent, mark = spent + now - mark, now
                if spent >= self.seconds * (len(curve) + 1) / self.validations:
                    with trainer.ema.applied(trainer.network) as averaged:
                        record = validate(averaged, val, torch.device("cpu")).record
                        inside = inside_of(averaged, trainer.config.data.val.path)
                    reached = {"inside": round(float(np.mean(list(inside.values()))), 4), **record}
                    curve.append({"step": trainer.step, "seconds": round(spent, 1), **reached})
                    print(f"  {curve[-1]}", flush=True)
                    mark = time.process_time()
                if spent >= self.seconds:
                    break
        return {
            "steps": trainer.step,
            "seconds": round(spent, 1),
            "wall_seconds": round(time.monotonic() - wall, 1),
            "curve": curve,
        }


def configured(plan: Plan, candidate: Candidate, seed: int, output: str) -> TrainConfig:
    """The configuration of one run."""
    own = [f"run.seed={seed}", f'run.output="{output}"', "run.threads=1", "data.grow=[]"]
    return load_config(ROOT / plan.config, [*plan.overrides, *candidate.overrides, *own])


def trained(plan: Plan, candidate: Candidate, seed: int, weights: Path) -> dict[str, Any]:
    """Train one run, keep its averaged weights, and measure it picture by picture."""
    with tempfile.TemporaryDirectory() as output:
        config = configured(plan, candidate, seed, output)
        data = config.data
        photographs = [f.path for f in data.folders if f.path.name.startswith("free")]
        with sharpest_of(sorted(set(photographs)), candidate.sharpest) as chosen:
            folders = [
                f.model_copy(update={"path": chosen.get(str(f.path), f.path)}) for f in data.folders
            ]
            config = config.model_copy(update={"data": data.model_copy(update={"train": folders})})
            with changed_row(config.network.variant, candidate.row):
                run = Run(config, plan.seconds, plan.validations)
                result = run.train()
        network = run.trainer.network.eval()
        with run.trainer.ema.applied(network) as averaged:
            result["pictures"] = {
                file.stem: psnr_of(averaged, file) for file in list_images(data.val.path)
            }
            result["inside"] = inside_of(averaged, data.val.path)
            weights.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(weights, averaged, config.network.variant)
    parameters = sum(p.numel() for p in network.parameters())
    about = {"name": candidate.name, "what": candidate.what, "seed": seed, "row": candidate.row}
    return {
        **about,
        "overrides": candidate.overrides,
        "sharpest": candidate.sharpest,
        "precision": run.trainer.accelerator.mixed_precision,
        "trained_parameters": parameters,
        **result,
    }


def known(path: Path) -> dict[str, Any]:
    """A result file, or one without runs."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": []}


def main() -> None:
    """Train what the result does not hold yet, and write it after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only these runs")
    options = parser.parse_args()
    plan = Plan.model_validate(tomllib.loads(options.plan.read_text(encoding="utf-8")))
    path = RESULTS / f"hours_{options.plan.stem}.json"
    wanted = [run for run in plan.run if not options.only or run.name in options.only]
    # Seed by seed, so that every candidate has been seen once before any is seen twice.
    pairs = sorted(((seed, run) for run in wanted for seed in run.seeds), key=lambda pair: pair[0])
    for seed, candidate in pairs:
        runs = known(path)["runs"]
        if any((run["name"], run["seed"]) == (candidate.name, seed) for run in runs):
            continue
        print(f"{candidate.name}, seed {seed}: {candidate.what}", flush=True)
        weights = ROOT / "runs" / path.stem / f"{candidate.name}_{seed}.safetensors"
        result = trained(plan, candidate, seed, weights)
        runs = known(path)["runs"]  # another command may write, too
        settings = plan.model_dump(mode="json", exclude={"run"})
        write_result(path, {**settings, "warmup_steps": WARMUP, "runs": [*runs, result]})


if __name__ == "__main__":
    main()
