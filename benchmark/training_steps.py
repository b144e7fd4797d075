"""Seconds that one training step takes here, for the configurations that a CPU may train.

Writes ``results/speed/training_steps.json``: the median of a few steps after a warm-up, on
random pictures, all threads. Loading is measured by ``benchmark/loader.py``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from paragonsr2.measure.machine import write_result
from paragonsr2.training.config import load_config
from paragonsr2.training.loop import Trainer

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "speed" / "training_steps.json"
#: Configuration, and the steps that are timed.
RUNS = {
    "realtime_x2_fidelity": 60,
    "realtime_x4_fidelity": 30,
    "stream_x2_fidelity": 12,
    "stream_x4_fidelity": 8,
    "realtime_x2_perceptual": 6,
}


def seconds_per_step(trainer: Trainer, count: int) -> float:
    """Median over ``count`` steps after two others."""
    side, batch = trainer.config.data.patch, trainer.config.data.batch
    large = side * trainer.config.network.scale
    lr, hr = torch.rand(batch, 3, side, side), torch.rand(batch, 3, large, large)
    times: list[float] = []
    # Late enough for every term to count.
    trainer.step = trainer.config.schedule.steps - 1
    for _ in range(count + 2):
        started = time.perf_counter()
        trainer.train_step(lr, hr)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def main() -> None:
    """Time each configuration and write the result file."""
    rows: list[dict[str, object]] = []
    for name, count in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            # What it starts from does not matter for its speed, and may not exist yet.
            text = (ROOT / "configs" / f"{name}.toml").read_text(encoding="utf-8")
            path = Path(folder) / "config.toml"
            kept = [line for line in text.splitlines() if not line.startswith("pretrain")]
            path.write_text("\n".join(kept), encoding="utf-8")
            told = [f"run.output={folder}/run", "run.device=cpu", "run.compile=false"]
            trainer = Trainer(load_config(path, told), log=lambda _: None)
        config = trainer.config
        rows.append(
            {
                "configuration": name,
                "batch": config.data.batch,
                "patch": config.data.patch,
                "steps": config.schedule.steps,
                "seconds_per_step": round(seconds_per_step(trainer, count), 4),
            }
        )
        print(rows[-1])
    write_result(RESULT, {"threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    main()
