"""What hostile or enormous images may cost, and what a killed run may leave: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT
from fuzz.bombs import make_bombs

# A process inherits the peak of the one that started it: not of pytest, which may be large.
REFUSE = """
import json, sys
from pathlib import Path
from fuzz.bombs import refuse
print(json.dumps(refuse(*map(Path, sys.argv[1:]))))
"""


def test_claimed_gigapixels_are_refused_cheaply(tmp_path):
    bombs = make_bombs()
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
    report = small_program(REFUSE, *(tmp_path / name for name in bombs))
    assert report["code"] == 1, report
    said = str(report["stderr"]).strip().splitlines()
    assert len(said) == len(bombs) + 1, said
    assert not report["stdout"]
    assert report["peak_mb"] < 300
    assert {path.name for path in tmp_path.iterdir()} == set(bombs)
    for name, line in zip(bombs, said, strict=False):
        assert name in line
        # libwebp has a limit of its own, below ours.
        assert "--max-megapixels" in line or name == "bomb.webp"


TALL = """
import sys
from pathlib import Path
import numpy as np
import paragonsr2.images.reading as files
from paragonsr2.images.writing import write_strips
import paragonsr2.upscale.upscaler as module
from paragonsr2.upscale.backends import ClassicalBackend
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task

class Cheap(ClassicalBackend):
    def run(self, x):
        return x.repeat(2, axis=2).repeat(2, axis=3)

files.AT_ONCE, files.STRIP, module.BAND = 1 << 22, 1 << 20, 1 << 22
module.open_backend = lambda *_, **__: Cheap(2, 0.0)
up = module.Upscaler("cheap", tile=128)
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
folder = Path(sys.argv[1])
rows = (np.full((100, 200, 3), y % 251, np.uint8) for y in range(1000))
write_strips(folder / "tall.png", files.Header(200, 100_000, 3, np.dtype(np.uint8)), rows)
before = peak()
outcome = run_task(Task(folder / "tall.png", folder / "large.png"), up)
assert outcome.status == "done", outcome
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a program")
def test_memory_does_not_grow_with_the_length_of_an_image(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TALL, tmp_path],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Pools and bands in flight take 30 to 50 MB, whatever the length; the whole result has 240.
    whole = 200 * 100_000 * 3 * 4
    assert int(done.stdout) < whole / 2


def small_program(*command):
    """Run Python with tests/ on its path; the JSON that it prints."""
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    start = [] if command[0].startswith("-") else ["-c"]
    done = subprocess.run(
        [sys.executable, *start, *command],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def fuzz_program(name, *options):
    """Run a program of tests/fuzz; what it prints."""
    return small_program("-m", f"fuzz.{name}", *options)


def test_spoiled_images_are_outputs_or_one_line():
    report = fuzz_program("run", "--cases", "60", "--seed", "7")
    assert sum(report["counts"].values()) == 60


def test_spoiled_clips_are_outputs_or_one_line():
    report = fuzz_program("run", "--clips", "--cases", "12", "--seed", "7")
    assert sum(report["counts"].values()) == 12


def test_killed_runs_leave_whole_files_only():
    assert fuzz_program("kill", "--kills", "3", "--seed", "3")["kills"] == 3
