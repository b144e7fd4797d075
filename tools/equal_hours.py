"""Compare ways to train by what they reach in the same processor time.

    python tools/equal_hours.py configs/hours/photo_blocks.toml

A plan names a configuration, the seconds of processor time that each run has, and the runs: what
they change of the configuration, and of the variant's row in the table of the family. The learning
rate follows the time instead of the step, so that a slow candidate is not cut off at a high rate.
Every run starts from nothing. Writes ``results/decisions/hours_PLAN.json``; runs that it already
holds are not repeated. A run that is stopped goes on from its state in ``runs/hours_PLAN``, where
its averaged weights stay, too; ``--keep FOLDER`` leaves a small copy of the state.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
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

from paragonsr2.files import write_atomic
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import LUMA_WEIGHTS
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.training.config import TrainConfig
from paragonsr2.training.config_file import load_config
from paragonsr2.training.loop import Trainer
from paragonsr2.training.machine import graceful
from paragonsr2.training.pictures import list_images
from paragonsr2.training.state import STATE_FILE, pack, read_state, unpack
from paragonsr2.training.validation import ValidationSet, validate
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


def sharpest_of(folders: Sequence[Path], share: float, made: Path) -> dict[str, Path]:
    """Folders in ``made`` of links to the sharpest pictures of ``folders``, all ranked together."""
    if share >= 1.0:
        return {str(folder): folder for folder in folders}
    files = [file for folder in folders for file in list_images(folder)]
    kept = sorted(files, key=sharpness, reverse=True)[: round(share * len(files))]
    chosen = {str(folder): made / folder.name for folder in folders}
    for folder in chosen.values():
        folder.mkdir(parents=True, exist_ok=True)
    for file in kept:
        link = chosen[str(file.parent)] / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())
    return chosen


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
    """One run by the clock, which goes on from the state in its folder if there is one.

    Args:
        config: of the run; its steps do not count.
        seconds: of processor time.
        validations: evenly over this time.
    """

    def __init__(self, config: TrainConfig, seconds: float, validations: int) -> None:
        self.seconds, self.validations, self.schedule = seconds, validations, config.schedule
        self.spent, self.curve, self.stopping = 0.0, list[dict[str, float]](), False
        state = config.run.output / STATE_FILE
        begun = state.exists()
        self.trainer = Trainer(config, resume=begun, log=lambda line: print(" ", line, flush=True))
        if begun:
            known = read_state(state)
            self.spent, self.curve = known["spent"], known["curve"]
            print(f"  goes on after {self.spent:.0f} s", flush=True)

    def state_dict(self) -> dict[str, Any]:
        """The state of the training, with the time spent and the curve."""
        return {**self.trainer.state_dict(), "spent": self.spent, "curve": self.curve}

    def stop(self) -> None:
        """Stop after the step that is being done."""
        self.stopping = True

    def rate(self) -> float:
        """Learning rate of the next step."""
        high, low = self.schedule.lr, self.schedule.final_lr
        share = min(1.0, self.spent / self.seconds)
        falling = low + (high - low) * 0.5 * (1.0 + math.cos(math.pi * share))
        return falling * min(1.0, (self.trainer.step + 1) / WARMUP)

    def train(self) -> bool:
        """Train until the time is over; returns whether it is, or the run was stopped."""
        trainer = self.trainer
        sampler, val = trainer.prepare_data()
        with contextlib.closing(trainer.batches(sampler)) as batches, graceful(self.stop):
            mark = time.process_time()
            for lr, hr in batches:
                rate = self.rate()
                steady = {"lr": rate, "final_lr": rate, "warmup": 0}
                schedule = self.schedule.model_copy(update=steady)
                trainer.config = trainer.config.model_copy(update={"schedule": schedule})
                trainer.train_step(lr, hr)
                trainer.step += 1
                now = time.process_time()
                self.spent, mark = self.spent + now - mark, now
                if self.spent >= self.seconds * (len(self.curve) + 1) / self.validations:
                    self.validate(val)
                    mark = time.process_time()
                over = self.spent >= self.seconds
                if over or self.stopping or trainer.checkpoints.due():
                    trainer.checkpoints.save(self)
                if over or self.stopping:
                    break
        return self.spent >= self.seconds

    def validate(self, val: ValidationSet) -> None:
        """Add a point to the curve."""
        trainer = self.trainer
        with trainer.ema.applied(trainer.network) as averaged:
            record = validate(averaged, val, torch.device("cpu")).record
            inside = inside_of(averaged, trainer.config.data.val.path)
        self.curve.append({
            "step": trainer.step, "seconds": round(self.spent, 1),
            "inside": round(float(np.mean(list(inside.values()))), 4), **record,
        })  # fmt: skip
        print(f"  {self.curve[-1]}", flush=True)


def configured(plan: Plan, candidate: Candidate, seed: int, folder: Path) -> TrainConfig:
    """The configuration of one run in ``folder``."""
    own = [f"run.seed={seed}", f'run.output="{folder}"', "run.threads=1", "data.grow=[]"]
    config = load_config(ROOT / plan.config, [*plan.overrides, *candidate.overrides, *own])
    photographs = [f.path for f in config.data.folders if f.path.name.startswith("free")]
    chosen = sharpest_of(sorted(set(photographs)), candidate.sharpest, folder / "pictures")
    folders = [
        one.model_copy(update={"path": chosen.get(str(one.path), one.path)})
        for one in config.data.folders
    ]
    data = config.data.model_copy(update={"train": folders})
    return config.model_copy(update={"data": data})


def trained(
    plan: Plan, candidate: Candidate, seed: int, folder: Path, keep: Path | None
) -> dict[str, Any] | None:
    """Train one run in ``folder`` and measure it picture by picture; None if it was stopped."""
    copy = None if keep is None else keep / f"{folder.parent.name}_{folder.name}.state"
    if copy is not None and copy.exists() and not (folder / STATE_FILE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        unpack(copy, folder)
    config = configured(plan, candidate, seed, folder)
    with changed_row(config.network.variant, candidate.row):
        run = Run(config, plan.seconds, plan.validations)
        over = run.train()
    if copy is not None:
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(copy, pack(folder, files=()))
    if not over:
        return None
    val, network = config.data.val.path, run.trainer.network.eval()
    with run.trainer.ema.applied(network) as averaged:
        pictures = {file.stem: psnr_of(averaged, file) for file in list_images(val)}
        inside = inside_of(averaged, val)
        save_checkpoint(folder / "weights.safetensors", averaged, config.network.variant)
    parameters = sum(p.numel() for p in network.parameters())
    about = {"name": candidate.name, "what": candidate.what, "seed": seed, "row": candidate.row}
    return {
        **about,
        "overrides": candidate.overrides,
        "sharpest": candidate.sharpest,
        "precision": run.trainer.accelerator.mixed_precision,
        "trained_parameters": parameters,
        "steps": run.trainer.step,
        "seconds": round(run.spent, 1),
        "curve": run.curve,
        "pictures": pictures,
        "inside": inside,
    }


def known(path: Path) -> dict[str, Any]:
    """A result file, or one without runs."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": []}


def main() -> None:
    """Train what the result does not hold yet, and write it after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only these runs")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for small copies of states")
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
        # Relative, as the folders of the data are, so that its state fits on another machine.
        folder = Path("runs", path.stem, f"{candidate.name}_{seed}")
        result = trained(plan, candidate, seed, folder, options.keep)
        if result is None:
            print("stopped; the same command goes on", flush=True)
            return
        runs = known(path)["runs"]  # another command may write, too
        settings = plan.model_dump(mode="json", exclude={"run"})
        write_result(path, {**settings, "warmup_steps": WARMUP, "runs": [*runs, result]})


if __name__ == "__main__":
    main()
