"""Runs that meet: on the same folder, on a full disk, or with a signal to end."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from clips import make_clip, regular
from conftest import photo_like
from paragonsr2.errors import BusyOutputError, OutputError
from paragonsr2.files import atomic_path, is_temporary, write_atomic
from paragonsr2.images.header import Picture
from paragonsr2.images.writing import write_picture
from paragonsr2.upscale.backends import ClassicalBackend
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.naming import plan_tasks
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler


def write_pictures(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        write_picture(folder / name, Picture(photo_like(20, 24)))


@pytest.mark.parametrize("output", [None, "in"])
def test_the_same_command_twice_takes_no_result_as_input(tmp_path, output):
    write_pictures(tmp_path / "in", "a.png", "b.png")
    folder = output and tmp_path / output
    first = plan_tasks([str(tmp_path / "in")], folder, 2, suffix="_big")
    write_pictures(tmp_path / "in", *(task.target.name for task in first))
    assert plan_tasks([str(tmp_path / "in")], folder, 2, suffix="_big") == first
    assert {task.target.name for task in first} == {"a_big.png", "b_big.png"}


class Waiting(ClassicalBackend):
    """Counts what it computes, and waits for a sign in the first picture."""

    def __init__(self, begun, go):
        super().__init__(2, 0.0)
        self.begun, self.go, self.calls = begun, go, 0

    def run(self, x):
        self.calls += 1
        if not self.begun.is_set():
            self.begun.set()
            assert self.go.wait(60)
        return super().run(x)


def test_two_runs_on_a_folder_share_the_work(tmp_path):
    write_pictures(tmp_path / "in", *(f"{n}.png" for n in range(6)))
    tasks = plan_tasks([str(tmp_path / "in")], tmp_path / "out", 2)
    begun, go = threading.Event(), threading.Event()
    backend = Waiting(begun, go)
    up = Upscaler.around(backend)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: [run_task(task, up) for task in tasks])
        assert begun.wait(60)
        second = [run_task(task, up) for task in tasks]
        go.set()
        outcomes = first.result()
    assert [one.status for one in second] == ["skipped"] + ["done"] * 5
    assert "another run" in second[0].message
    assert [one.status for one in outcomes] == ["done"] + ["skipped"] * 5
    assert backend.calls == 6
    assert not [path for path in (tmp_path / "out").iterdir() if is_temporary(path)]


def test_two_runs_do_not_write_one_clip(tmp_path):
    make_clip(tmp_path / "a.mkv", regular(4))
    task = Task(tmp_path / "a.mkv", tmp_path / "out.mkv")
    begun, go = threading.Event(), threading.Event()
    up = Upscaler.around(Waiting(begun, go))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(run_task, task, up)
        assert begun.wait(60)
        assert run_task(task, up).status == "skipped"
        go.set()
        assert first.result().status == "done"


def test_files_whose_names_begin_alike_are_not_busy(tmp_path):
    long = "x" * 170
    names = ["a.png", "a.b.png", f"{long}1.png", f"{long}2.png", "写" * 70 + ".png"]
    with contextlib.ExitStack() as open_files:
        for name in names:
            part = open_files.enter_context(atomic_path(tmp_path / name, alone=True))
            assert is_temporary(part)
        for name in names:
            with pytest.raises(BusyOutputError), atomic_path(tmp_path / name, alone=True):
                pass
        # Who does not ask to be alone writes as before.
        write_atomic(tmp_path / "a.png", b"1")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_pipe_or_a_folder_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    for name in ("a.png", "b.png"):
        with pytest.raises(OutputError, match="not a regular file"):
            write_picture(tmp_path / name, Picture(photo_like(9, 9)))
    assert (tmp_path / "a.png").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@contextlib.contextmanager
def files_of_at_most(size):
    """As on a disk with that much room: a longer file cannot be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif", ".gif"])
def test_no_room_for_a_picture_says_so(tmp_path, suffix):
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"older")
    with files_of_at_most(4000), pytest.raises(OutputError, match="File too large"):
        write_picture(path, Picture(noise))
    assert path.read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_sigterm_leaves_no_temporary_file(tmp_path):
    write_pictures(tmp_path / "in", "0.png")
    write_picture(tmp_path / "in" / "1.png", Picture(photo_like(1500, 1500)))
    command = [
        sys.executable, "-m", "paragonsr2", "upscale", tmp_path / "in", "-o", tmp_path / "out",
        "--tile", "64", "--events",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and event["input"].endswith("1.png"):
                break
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"Traceback" not in said
    assert [path.name for path in (tmp_path / "out").iterdir()] in ([], ["0.png"])
