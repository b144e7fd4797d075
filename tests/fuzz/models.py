"""Give hostile model files to the verbs that open models: each must end in a line, soon and small.

::

    PYTHONPATH=tests python -m fuzz.models --pickled 50 --onnx 100 --safetensors 500 \\
        --result results/robustness/hostile_models.json

Each file goes through ``upscale``, ``inspect``, ``export`` and ``evaluate``, each command in a fork
of a process that has imported everything. For the first file of each kind, ``upscale`` starts the
limited process that opens a model as it does for a user; for the others that is a fork too.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fuzz.hostile_models import hostile_onnx, hostile_pickle, hostile_safetensors
from paragonsr2.measure.machine import write_result

#: Seconds that a command may take, and how long it is waited for.
MOST_SECONDS, PATIENCE = 60.0, 120.0

#: Megabytes that a command may take.
MOST_MEMORY = 4096.0


_NOTHING: dict[str, object] = {
    "stdout": "", "stderr": "", "seconds": PATIENCE, "peak_mb": 0.0, "children_mb": 0.0
}  # fmt: skip


class Worker:
    """A process that runs commands, restarted when it dies."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin, or begin anew."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.model_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def ask(self, arguments: list[str], *, cold: bool) -> dict[str, object]:
        """The answer; ``crash`` and ``hang`` are exit codes too."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"arguments": arguments, "cold": cold}
        self.process.stdin.write((json.dumps(order) + "\n").encode())
        self.process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            answered = selector.select(PATIENCE)
        answer = self.process.stdout.readline() if answered else b""
        if answer:
            return {**_NOTHING, **json.loads(answer)}
        os.killpg(self.process.pid, signal.SIGKILL)
        self.close()
        self.start()
        return {**_NOTHING, "code": "crash" if answered else "hang"}

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


@dataclass
class Report:
    """What came of the cases.

    Attributes:
        codes: commands by format, verb and exit code.
        wrong: what was neither a result nor a line, or took too much.
        said: one message for each kind of file.
        slowest: seconds of the slowest command.
        peak_mb, children_mb: the largest memory of a command, and of a process that it started.
    """

    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[dict[str, object]] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0
    peak_mb: float = 0.0
    children_mb: float = 0.0


def judge(told: dict[str, object]) -> str:
    """What is wrong with the answer to a command; empty if nothing is."""
    code, said = told["code"], str(told["stderr"]).strip()
    if code not in (0, 1, 2, 3):
        return str(code)
    if "Traceback" in said:
        return "traceback"
    if code != 0 and not 1 <= len(said.splitlines()) <= 2:
        return "no single line"
    if float(str(told["seconds"])) > MOST_SECONDS:
        return "too slow"
    if max(float(str(told[key])) for key in ("peak_mb", "children_mb")) > MOST_MEMORY:
        return "too much memory"
    return ""


def verbs(model: Path, folder: Path) -> Iterator[list[str]]:
    """The commands that open a model."""
    yield ["upscale", f"{folder}/in/a.png", "-m", str(model), "-o", f"{folder}/out.png"]
    yield ["inspect", str(model)]
    yield ["export", "-m", str(model), "-o", f"{folder}/export"]
    yield ["evaluate", f"{folder}/in", "-m", str(model)]


def cases(counts: dict[str, int], seed: int, mark: str) -> Iterator[tuple[str, str, bytes]]:
    """Suffix, kind and content of each hostile file."""
    for number in range(counts["pth"]):
        yield ".pth", *hostile_pickle(number, seed, mark)
    for number in range(counts["onnx"]):
        yield ".onnx", *hostile_onnx(number, seed)
    for number in range(counts["safetensors"]):
        yield ".safetensors", *hostile_safetensors(number, seed)


def fuzz(counts: dict[str, int], seed: int, keep: Path | None = None) -> Report:
    """Give the files to every verb."""
    report = Report()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        noise = np.random.default_rng(1).integers(0, 255, (48, 40, 3), np.uint8)
        Image.fromarray(noise).save(folder / "in/a.png")
        mark = folder / "ran"
        worker = Worker()
        for number, (suffix, kind, content) in enumerate(cases(counts, seed, str(mark))):
            model = folder / f"m{number}{suffix}"
            model.write_bytes(content)
            for arguments in verbs(model, folder):
                # Before anything was said of this kind, everything is as for a user.
                cold = f"{suffix} {kind}" not in report.said
                told = worker.ask(arguments, cold=cold)
                seconds = float(str(told["seconds"]))
                wrong = "code ran" if mark.exists() else judge(told)
                report.codes[f"{suffix} {arguments[0]} {told['code']}"] += 1
                report.slowest = max(report.slowest, seconds)
                report.peak_mb = max(report.peak_mb, float(str(told["peak_mb"])))
                report.children_mb = max(report.children_mb, float(str(told["children_mb"])))
                said = str(told["stderr"]).replace(name, "").strip()
                report.said.setdefault(f"{suffix} {kind}", said[:240])
                if wrong:
                    case = {"file": f"{number} {kind}{suffix}", "verb": arguments[0], "what": wrong}
                    report.wrong.append({**case, "said": said[-600:], "seconds": round(seconds, 1)})
                    mark.unlink(missing_ok=True)
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / model.name).write_bytes(content)
            model.unlink()
        worker.close()
    return report


def main() -> None:
    """Fuzz and write the result file; exit 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pickled", type=int, default=50)
    parser.add_argument("--onnx", type=int, default=100)
    parser.add_argument("--safetensors", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for files that went wrong")
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    counts = {
        "pth": options.pickled, "onnx": options.onnx, "safetensors": options.safetensors
    }  # fmt: skip
    started = time.perf_counter()
    report = fuzz(counts, options.seed, options.keep)
    result = {
        "what": "hostile model files through upscale, inspect, export and evaluate",
        "files": counts,
        "seed": options.seed,
        "codes": dict(sorted(report.codes.items())),
        "wrong": report.wrong,
        "slowest_seconds": round(report.slowest, 1),
        "peak_mb": round(report.peak_mb),
        "peak_of_limited_processes_mb": round(report.children_mb),
        "said": report.said,
        "seconds": round(time.perf_counter() - started),
    }
    print(json.dumps(result, indent=1))
    if options.result:
        write_result(options.result, result)
    sys.exit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
