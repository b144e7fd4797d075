"""What data loading costs the trainer: steps per second with it and without, same run.

Writes ``results/speed/training_loader.json``. Chunks of steps with fresh batches and with one
batch used again alternate, so that both share good and bad moments of the machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from paragonsr2.measure.machine import write_result
from paragonsr2.training.config import load_config
from paragonsr2.training.loop import Trainer

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "speed" / "training_loader.json"


def steps_per_second(trainer: Trainer, batches: Iterator[tuple[Tensor, Tensor]], n: int) -> float:
    """Speed over ``n`` steps."""
    started = time.perf_counter()
    for _ in range(n):
        trainer.train_step(*next(batches))
    return n / (time.perf_counter() - started)


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", default=None)
    parser.add_argument("--chunks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40, help="per chunk")
    options = parser.parse_args()
    config = options.config or ROOT / "configs" / "realtime_x2_fidelity.toml"
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(load_config(config, [f"run.output={folder}"]))
        sampler, _ = trainer.prepare_data()
        loading = trainer.batches(sampler)
        same = next(loading)
        without = iter(lambda: same, None)
        steps_per_second(trainer, loading, options.steps)  # warm-up
        pairs = [
            (
                steps_per_second(trainer, loading, options.steps),
                steps_per_second(trainer, without, options.steps),
            )
            for _ in range(options.chunks)
        ]
        loading.close()
    fresh, reused = (float(np.median(column)) for column in zip(*pairs, strict=True))
    print(f"with loading {fresh:.2f} steps/s, without {reused:.2f}, ratio {fresh / reused:.3f}")
    write_result(
        RESULT,
        {
            "config": config.name,
            "steps_per_second": {"with_loading": fresh, "without_loading": reused},
            "ratio": round(fresh / reused, 4),
        },
    )


if __name__ == "__main__":
    main()
