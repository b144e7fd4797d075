"""Train one small generator against several discriminators, and measure what comes of it.

    python tools/discriminator_proof.py configs/hours/discriminators.toml

A plan names a configuration, the discriminators, the weights of the adversarial loss that each of
them may try, and the seeds. Each discriminator first gets a short trial with every weight; that
with the lowest :func:`distance` is its own for the long runs, one for each seed. Writes
``results/perceptual/discriminator_proof.json`` and, for the sheet, the weights of the first seed;
what the file holds already is not repeated, and a run that was stopped goes on from its last state
beside those weights, so the command can be stopped and started at any time. Several of them may run
at once, each with discriminators of its own (``--only``).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import shutil
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from perceptual_evaluation import measures
from pydantic import BaseModel, ConfigDict

from paragonsr2.arrays.convert import to_float, to_pixels
from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, shrink
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.training.config_file import load_config
from paragonsr2.training.data import CropSampler
from paragonsr2.training.loop import Trainer
from paragonsr2.training.pictures import list_images
from paragonsr2.training.state import STATE_FILE
from paragonsr2.weights.store import load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "perceptual" / "discriminator_proof.json"
#: Where the weights of the first seed are kept until the sheet is drawn, and the state of a run
#: until its row is written, on whatever machine.
RUNS = ROOT / "training_state" / "discriminator_proof"
#: What :func:`distance` averages.
DISTANCES = (
    "log_spectral_distance_db",
    "gradient_histogram_distance",
    "efficientnet_lite0_distance",
    "text_detector_distance",
)
#: Name of the row of the generator that all runs start from.
START = "fidelity"


class Table(BaseModel):
    """A table of the plan; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Opponent(Table):
    """One discriminator, and what it changes of the configuration."""

    name: str
    overrides: tuple[str, ...] = ()


class Plan(Table):
    """A whole comparison.

    Attributes:
        config: the configuration, from the root of the repository.
        overrides: of it, for all runs.
        steps: of a long run.
        trial_steps: of a trial.
        seeds: of the long runs; trials have the first.
        weights: of the adversarial loss that each discriminator tries.
        opponent: the discriminators.
    """

    config: Path
    overrides: tuple[str, ...]
    steps: int
    trial_steps: int
    seeds: tuple[int, ...]
    weights: tuple[float, ...]
    opponent: tuple[Opponent, ...]


def stored_rows() -> list[dict[str, Any]]:
    """The rows of the result file, if there is one."""
    if not RESULT.exists():
        return []
    return json.loads(RESULT.read_text(encoding="utf-8"))["rows"]


class Proof:
    """Trains and measures; pictures are read once for all runs.

    Args:
        plan: what to compare.
        only: names of the discriminators to train; empty for all.
    """

    def __init__(self, plan: Plan, only: Sequence[str]) -> None:
        self.plan = plan
        self.opponents = [o for o in plan.opponent if not only or o.name in only]
        self.sampler: CropSampler | None = None
        self.measures = measures(2)
        self.rows = stored_rows()

    def run(self) -> None:
        """Whatever the result file lacks: the start, the trials, then the long runs by seed."""
        plan = self.plan
        config = load_config(ROOT / plan.config, list(plan.overrides))
        self.val = [read_picture(path).pixels for path in list_images(config.data.val.path)]
        if self._find(START) is None:
            assert config.network.pretrain is not None
            network = load_checkpoint(config.network.pretrain).network
            self._add({"opponent": START, "steps": 0, **self.measured(network)})
        for opponent in self.opponents:
            for weight in plan.weights:
                self._train(opponent, weight, plan.seeds[0], plan.trial_steps)
        for seed in plan.seeds:
            for opponent in self.opponents:
                self._train(opponent, self.best_weight(opponent), seed, plan.steps)

    def best_weight(self, opponent: Opponent) -> float:
        """The weight whose trial came nearest to the originals."""
        trials = [
            row for row in self.rows
            if (row["opponent"], row["steps"]) == (opponent.name, self.plan.trial_steps)
        ]  # fmt: skip
        return min(trials, key=self.distance)["weight"]

    def distance(self, row: dict[str, Any]) -> float:
        """Mean of four distances to the originals, each as a share of that of the start."""
        start = self._find(START)
        assert start is not None
        return float(np.mean([row[key] / start[key] for key in DISTANCES]))

    def _find(self, opponent: str, **wanted: object) -> dict[str, Any] | None:
        for row in self.rows:
            if row["opponent"] == opponent and all(row[k] == v for k, v in wanted.items()):
                return row
        return None

    def _add(self, row: dict[str, Any]) -> None:
        settings = self.plan.model_dump(mode="json")
        with (Path(tempfile.gettempdir()) / "discriminator_proof.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # others may have added rows
            self.rows = [*stored_rows(), row]
            write_result(RESULT, {**settings, "set": "val", "rows": self.rows})
        print(row, flush=True)

    def _train(self, opponent: Opponent, weight: float, seed: int, steps: int) -> None:
        if self._find(opponent.name, weight=weight, seed=seed, steps=steps) is not None:
            return
        name = opponent.name.replace(" ", "_")
        output = RUNS / f"{name}_{weight}_{seed}_{steps}"
        own = [
            f"schedule.steps={steps}", f"run.seed={seed}", f'run.output="{output}"',
            f"loss.adversarial.weight={weight}", "run.threads=1", "run.precision=fastest",
        ]  # fmt: skip
        config = load_config(
            ROOT / self.plan.config, [*self.plan.overrides, *opponent.overrides, *own]
        )
        trainer = Trainer(
            config,
            resume=(output / STATE_FILE).exists(),
            log=lambda line: print(" ", line, flush=True),
        )
        if self.sampler is None:
            self.sampler, _ = trainer.prepare_data()
        pictures = self.sampler.pictures
        sampler = CropSampler(pictures, self.sampler.scale, config.data.patch, seed)
        begun, started = trainer.step, time.process_time()
        with contextlib.closing(trainer.batches(sampler)) as batches:
            while trainer.step < steps:
                terms = trainer.train_step(*next(batches))
                trainer.step += 1
                if trainer.step % 500 == 0:
                    shown = {key: round(float(value), 4) for key, value in terms.items()}
                    print(f"  {opponent.name} {weight} {seed}: {trainer.step} {shown}", flush=True)
                    trainer.checkpoints.save(trainer)
        seconds = (time.process_time() - started) / max(1, steps - begun)
        assert trainer.opponent is not None
        judges = sum(p.numel() for p in trainer.opponent.network.parameters())
        with trainer.ema.applied(trainer.network) as averaged:
            found = self.measured(averaged)
            if seed == self.plan.seeds[0] and steps == self.plan.steps:
                RUNS.mkdir(parents=True, exist_ok=True)
                save_checkpoint(RUNS / f"{name}.safetensors", averaged, config.network.variant)
        about = {"opponent": opponent.name, "weight": weight, "seed": seed, "steps": steps}
        self._add({
            **about, "precision": trainer.accelerator.mixed_precision,
            "seconds_per_step": round(seconds, 4), "parameters": judges, **found,
        })  # fmt: skip
        shutil.rmtree(output, ignore_errors=True)

    def measured(self, network: ParagonSR2) -> dict[str, float]:
        """Every measure in the mean over the validation pictures."""
        values: list[list[float]] = []
        for original in self.val:
            hr = crop_to_multiple(original, network.scale)
            sr = enlarged(network, hr)
            values.append([measure(sr, hr) for measure in self.measures.values()])
        means = np.mean(values, axis=0)
        return {key: round(float(v), 5) for key, v in zip(self.measures, means, strict=True)}


def enlarged(network: ParagonSR2, hr: Pixels8) -> Pixels8:
    """What ``network`` makes of a shrunk picture."""
    with torch.no_grad():
        sr = network(torch.from_numpy(to_float(shrink(hr, network.scale)))).numpy()
    return to_pixels(sr, hr).astype(np.uint8, copy=False)


def main() -> None:
    """Run a plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--only", nargs="+", default=[], help="names of discriminators to train")
    options = parser.parse_args()
    plan = Plan.model_validate(tomllib.loads(options.plan.read_text(encoding="utf-8")))
    if unknown := {*options.only} - {opponent.name for opponent in plan.opponent}:
        parser.error(f"{options.plan} has no discriminator {', '.join(sorted(unknown))}")
    Proof(plan, options.only).run()


if __name__ == "__main__":
    main()
