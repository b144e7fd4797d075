"""Time one training step for the configurations that can be trained on a CPU.

    python benchmark/training_steps.py [--before COMMIT] [--only NAME ...] [--result FILE]
    python benchmark/training_steps.py --profile

Writes ``results/speed/training_steps.json``: the median processor time of a few steps after a
warm-up, on random images and one thread, in float32 and, if the CPU has instructions for it, in
bfloat16; and the speed of its multiply-adds as a share of a large float32 matrix product.
Processor time excludes other programs; with more than one thread it is the time that passes, so
nothing else should run. With ``--before``, an older commit is measured in
alternation, each tree in its own processes. ``benchmark/loader.py`` measures the data loader.

``--profile`` writes ``results/speed/training_profile.json`` instead: the operations that a step
spends most time in, and their shares.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from operator import itemgetter
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from paragonsr2.measure.cost import network_cost
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.speed import matrix_peak
from paragonsr2.network.generator import build
from paragonsr2.training.loop import Trainer

try:
    from paragonsr2.training.config_file import load_config
except ModuleNotFoundError:  # this file also runs on older trees, where it was elsewhere
    load_config = importlib.import_module("paragonsr2.training.config").load_config

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "speed" / "training_steps.json"
PROFILE = ROOT / "results" / "speed" / "training_profile.json"
#: Operations of a profile, and the steps that it watches.
OPERATIONS, WATCHED = 6, 5
#: Number of timed steps per process, by configuration.
RUNS = {
    "realtime_x2_lines": 16,
    "realtime_x4_lines": 12,
    "stream_x2_fidelity": 10,
    "stream_x4_fidelity": 8,
    "photo_x2_fidelity": 6,
    "realtime_x2_perceptual": 3,
}
#: Processes per tree; the trees alternate.
TURNS = 3


def timed_trainer(root: Path, name: str, precision: str, threads: int = 1) -> Trainer:
    """A trainer near the end of its run, where every loss term is active."""
    with tempfile.TemporaryDirectory() as folder:
        # The pretrained weights do not affect the speed and may not exist yet.
        text = (root / "configs" / f"{name}.toml").read_text(encoding="utf-8")
        path = Path(folder) / "config.toml"
        kept = [line for line in text.splitlines() if not line.startswith("pretrain")]
        path.write_text("\n".join(kept), encoding="utf-8")
        overrides = [f"run.output={folder}/run", "run.device=cpu", "run.compile=false"]
        overrides += [
            f"run.threads={threads}",
            f"run.precision={precision}",
            "data.batch=8",
            "data.patch=48",
        ]
        trainer = Trainer(load_config(path, overrides), log=lambda _: None)
    trainer.step = trainer.config.schedule.steps - 1
    return trainer


def seconds_per_step(trainer: Trainer, count: int) -> float:
    """Median over ``count`` steps, after two for warm-up."""
    data, scale = trainer.config.data, trainer.config.network.scale
    lr = torch.rand(data.batch, 3, data.patch, data.patch)
    hr = torch.rand(data.batch, 3, data.patch * scale, data.patch * scale)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: list[float] = []
    for _ in range(count + 2):
        started = clock()
        trainer.train_step(lr, hr)
        times.append(clock() - started)
    return statistics.median(times[2:])


def shares(trainer: Trainer) -> dict[str, float]:
    """The operations that take most of a step, and their shares of its time."""
    seconds_per_step(trainer, 1)
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        seconds_per_step(trainer, WATCHED)
    times: dict[str, float] = {row.key: row.self_cpu_time_total for row in watched.key_averages()}
    longest = sorted(times.items(), key=itemgetter(1), reverse=True)[:OPERATIONS]
    return {key: round(taken / sum(times.values()), 3) for key, taken in longest}


def in_a_process(root: Path, name: str, precision: str, threads: int) -> float:
    """Run :func:`seconds_per_step` in a process of its own, with the code in ``root``."""
    command = [sys.executable, __file__, "--child", str(root), name, precision, str(threads)]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _bfloat16() -> bool:
    # Imported here because this file also runs on older trees, which may not have it.
    from paragonsr2.training.machine import multiplies_bfloat16

    return multiplies_bfloat16()


def measure(name: str, before: Path | None, threads: int) -> dict[str, object]:
    """Measure one row of the result, alternating between this tree and the older one."""
    config = load_config(ROOT / "configs" / f"{name}.toml")
    trees = {"seconds_per_step": ROOT, **({"seconds_before": before} if before else {})}
    row: dict[str, object] = {"configuration": name, "batch": 8, "patch": 48}
    for precision in ("fp32", "bf16") if _bfloat16() else ("fp32",):
        taken: dict[str, list[float]] = {key: [] for key in trees}
        for _ in range(TURNS):
            for key, tree in trees.items():
                taken[key].append(in_a_process(tree, name, precision, threads))
        for key, seconds in taken.items():
            row.setdefault(key, {})[precision] = round(statistics.median(seconds), 4)  # type: ignore[index]
    cost = network_cost(build(config.network.variant, config.network.scale)).kmacs_per_pixel
    torch.set_num_threads(threads)
    # Forward, and backward to inputs and to weights.
    work = 3 * 2 * 1e3 * cost * 8 * 48**2
    row["share_of_peak"] = round(work / row["seconds_per_step"]["fp32"] / matrix_peak(), 3)  # type: ignore[index]
    return row


def main() -> None:
    """Time each configuration and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", metavar="COMMIT")
    parser.add_argument("--only", choices=RUNS, nargs="+", help="time these configurations")
    parser.add_argument(
        "--without-before", choices=RUNS, nargs="+", default=[], help="too slow in that commit"
    )
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="what a step's time goes into")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        root, name, precision, threads = options.child
        trainer = timed_trainer(Path(root), name, precision, int(threads))
        print(seconds_per_step(trainer, RUNS[name]))
        return
    if options.profile:
        torch.set_num_threads(options.threads)
        precision = "bf16" if _bfloat16() else "fp32"
        steps = {
            name: shares(timed_trainer(ROOT, name, precision, options.threads))
            for name in options.only or RUNS
        }
        about = {"threads": options.threads, "precision": precision}
        write_result(PROFILE, {**about, "shares": steps})
        return
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before" if options.before else None
        if before:
            subprocess.run(["git", "clone", "-q", str(ROOT), str(before)], check=True)
            subprocess.run(["git", "checkout", "-q", options.before], cwd=before, check=True)
        rows: list[dict[str, object]] = []
        for name in options.only or RUNS:
            compared = None if name in options.without_before else before
            rows.append(measure(name, compared, options.threads))
            print(json.dumps(rows[-1]), flush=True)
    about = {
        "threads": options.threads,
        "before": options.before or "",
        "bfloat16": _bfloat16(),
        "matrix_peak_gflops": round(matrix_peak() / 1e9, 1),
    }
    write_result(options.result, {**about, "rows": rows})


if __name__ == "__main__":
    main()
