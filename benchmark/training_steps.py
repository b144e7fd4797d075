"""Seconds that one training step takes here, for the configurations that a CPU may train.

Writes ``results/speed/training_steps.json``: the median processor time of a few steps after a
warm-up, on random pictures and one thread, in float32 and in bfloat16. Processor time does not
count what other programs take. Loading is measured by ``benchmark/loader.py``.
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
    "realtime_x2_fidelity": 24,
    "realtime_x4_fidelity": 16,
    "stream_x2_fidelity": 12,
    "stream_x4_fidelity": 8,
    "realtime_x2_perceptual": 4,
}
PRECISIONS = ("fp32", "bf16")


def timed_trainer(name: str, precision: str) -> Trainer:
    """A trainer of that configuration, late enough in its run for every term to count."""
    with tempfile.TemporaryDirectory() as folder:
        # What it starts from does not matter for its speed, and may not exist yet.
        text = (ROOT / "configs" / f"{name}.toml").read_text(encoding="utf-8")
        path = Path(folder) / "config.toml"
        kept = [line for line in text.splitlines() if not line.startswith("pretrain")]
        path.write_text("\n".join(kept), encoding="utf-8")
        told = [f"run.output={folder}/run", "run.device=cpu", "run.compile=false"]
        told += ["run.threads=1", f"run.precision={precision}"]
        trainer = Trainer(load_config(path, told), log=lambda _: None)
    trainer.step = trainer.config.schedule.steps - 1
    return trainer


def seconds_per_step(trainer: Trainer, count: int) -> float:
    """Median over ``count`` steps after two others."""
    data, scale = trainer.config.data, trainer.config.network.scale
    lr = torch.rand(data.batch, 3, data.patch, data.patch)
    hr = torch.rand(data.batch, 3, data.patch * scale, data.patch * scale)
    times: list[float] = []
    for _ in range(count + 2):
        started = time.process_time()
        trainer.train_step(lr, hr)
        times.append(time.process_time() - started)
    return statistics.median(times[2:])


def main() -> None:
    """Time each configuration and write the result file."""
    rows: list[dict[str, object]] = []
    for name, count in RUNS.items():
        config = load_config(ROOT / "configs" / f"{name}.toml")
        seconds = {
            precision: round(seconds_per_step(timed_trainer(name, precision), count), 4)
            for precision in PRECISIONS
        }
        rows.append(
            {
                "configuration": name,
                "batch": config.data.batch,
                "patch": config.data.patch,
                "steps": config.schedule.steps,
                "precision": "bf16" if config.run.precision == "bf16" else "fp32",
                "seconds_per_step": seconds,
            }
        )
        print(rows[-1], flush=True)
    about = {"threads": 1, "avx512_bf16": bool(torch.cpu.get_capabilities().get("avx512_bf16"))}
    write_result(RESULT, {**about, "rows": rows})


if __name__ == "__main__":
    main()
