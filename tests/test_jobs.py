"""Jobs of many files: names, order, what is skipped, what a failure leaves, what overlaps."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import pyvips

from clips import make_clip, regular
from conftest import photo_like
from paragonsr2.cli.progress import Events, ProgressLine
from paragonsr2.clips.codecs import CODECS, CodecName
from paragonsr2.errors import BackendError, ImageError, UsageError
from paragonsr2.files import atomic_path, is_temporary
from paragonsr2.images.formats import WRITABLE
from paragonsr2.images.header import Picture
from paragonsr2.images.names import ImageFormatName
from paragonsr2.images.reading import read_picture
from paragonsr2.images.writing import write_picture
from paragonsr2.upscale import pictures
from paragonsr2.upscale.background import in_background
from paragonsr2.upscale.job import run_task, run_tasks
from paragonsr2.upscale.naming import plan_tasks
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler
from test_cli import run


@pytest.fixture(scope="module")
def magic():
    return Upscaler("magic", 2, tile=64)


def write_pictures(folder, *names):
    for name in names:
        write_picture(folder / name, Picture(photo_like(20, 24)))


def targets(*arguments, **options):
    return [task.target for task in plan_tasks(*arguments, **options)]


def test_a_tree_is_mirrored_and_suffix_and_format_are_followed(tmp_path):
    write_pictures(tmp_path / "in", "a.png", "deep/b.jpg")
    source, out = str(tmp_path / "in"), tmp_path / "out"
    assert targets([source], out, 2) == [out / "a.png", out / "deep" / "b.jpg"]
    assert targets([source], out, 2, "webp", "-big") == [
        out / "a-big.webp", out / "deep" / "b-big.webp"
    ]  # fmt: skip
    assert targets([source], None, 3) == [
        tmp_path / "in" / "a_x3.png", tmp_path / "in" / "deep" / "b_x3.jpg"
    ]  # fmt: skip
    for bad in ("/../x", "a/b"):
        with pytest.raises(UsageError, match="--suffix"):
            plan_tasks([source], out, 2, suffix=bad)
    with pytest.raises(UsageError, match="is also an input"):
        plan_tasks([source], None, 2, suffix="")


def test_results_of_an_earlier_run_are_no_inputs(tmp_path, magic):
    write_pictures(tmp_path, "a.png", "deep/b.png")
    inside = tmp_path / "large"
    for output in (None, inside):
        tasks = plan_tasks([str(tmp_path)], output, 2)
        assert [task.source.name for task in tasks] == ["a.png", "b.png"]
        assert all(outcome.status == "done" for outcome in run_tasks(tasks, magic))
        again = plan_tasks([str(tmp_path)], output, 2)
        if output is None:
            assert again == tasks
            for task in tasks:
                task.target.unlink()
    assert again == tasks


def test_outputs_that_are_newer_are_kept_and_older_ones_made_again(tmp_path, magic):
    write_pictures(tmp_path, "a.png")
    task = Task(tmp_path / "a.png", tmp_path / "b.png")
    assert run_task(task, magic).status == "done"
    assert run_task(task, magic).status == "skipped"
    assert run_task(task, magic, overwrite=True).status == "done"
    later = task.target.stat().st_mtime_ns + 10**9
    os.utime(task.source, ns=(later, later))
    assert run_task(task, magic).status == "done"


def test_outcomes_come_in_order_and_a_bad_file_stops_itself_alone(tmp_path, magic):
    names = [f"{number}.png" for number in range(7)]
    write_pictures(tmp_path, *names)
    (tmp_path / "2.png").write_bytes(b"no picture")
    whole = (tmp_path / "4.png").read_bytes()
    (tmp_path / "4.png").write_bytes(whole[: len(whole) * 2 // 3])
    tasks = [Task(tmp_path / name, tmp_path / "out" / name) for name in names]
    outcomes = list(run_tasks(tasks, magic))
    assert [outcome.source.name for outcome in outcomes] == names
    failed = [outcome.source.name for outcome in outcomes if outcome.status == "failed"]
    assert failed == ["2.png", "4.png"]
    assert len(list((tmp_path / "out").iterdir())) == 5


def test_a_failing_engine_or_disk_fails_the_file_and_leaves_nothing(tmp_path, magic, monkeypatch):
    write_pictures(tmp_path, "a.png", "b.png")
    tasks = [Task(tmp_path / n, tmp_path / "out" / n) for n in ("a.png", "b.png")]

    def fail(*_):
        raise BackendError("no engine")

    with monkeypatch.context() as patch:
        patch.setattr(magic.backend, "run", fail)
        assert [o.message for o in run_tasks(tasks, magic)] == ["no engine"] * 2
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        assert all("No space left" in o.message for o in run_tasks(tasks, magic))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("model", ["magic", "realtime"])
@pytest.mark.parametrize("memory", [1 << 31, 1])
def test_pictures_side_by_side_are_what_each_is_alone(tmp_path, monkeypatch, model, memory):
    monkeypatch.setattr(pictures, "cores", lambda: 3)
    monkeypatch.setattr(pictures, "_SMALL_PICTURES_MEMORY", memory)  # with 1 byte none is small
    upscaler = Upscaler(model, 2, device="cpu")
    names = [f"{number}.png" for number in range(9)]
    for number, name in enumerate(names):
        write_picture(tmp_path / name, Picture(photo_like(30 + 7 * number, 60, seed=number)))
    (tmp_path / names[5]).write_bytes(b"no picture")
    tasks = [Task(tmp_path / name, tmp_path / "out" / name) for name in names]
    outcomes = list(run_tasks(tasks, upscaler))
    assert [outcome.source.name for outcome in outcomes] == names
    assert [o.source.name for o in outcomes if o.status != "done"] == [names[5]]
    for task in tasks[:5] + tasks[6:]:
        alone = upscaler(read_picture(task.source).pixels)
        assert np.abs(read_picture(task.target).pixels.astype(int) - alone).max() <= 1


def test_giving_up_in_the_middle_leaves_no_file_and_no_thread(tmp_path, magic):
    names = [f"{number}.png" for number in range(5)]
    write_pictures(tmp_path, *names)
    before = threading.active_count()
    tasks = [Task(tmp_path / name, tmp_path / "out" / name) for name in names]
    running = run_tasks(tasks, magic)
    next(running)
    running.close()
    assert threading.active_count() == before
    assert not any(is_temporary(path) for path in (tmp_path / "out").iterdir())
    for path in (tmp_path / "out").iterdir():
        assert read_picture(path).pixels.shape == (40, 48, 3)


def test_an_unexpected_error_is_not_swallowed(tmp_path, magic, monkeypatch):
    write_pictures(tmp_path, "a.png")
    monkeypatch.setattr(magic.backend, "run", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_task(Task(tmp_path / "a.png", tmp_path / "b.png"), magic)


def test_leftovers_of_dead_runs_go_and_those_of_living_stay(tmp_path):
    target = tmp_path / "x[1].png"
    dead = tmp_path / ".x[1].0123abcd.part.png"
    other = tmp_path / ".y.0123abcd.part.png"
    for path in (dead, other):
        path.write_bytes(b"half")
    with atomic_path(target) as outer:
        outer.write_bytes(b"outer")
        assert not dead.exists()
        with atomic_path(target) as inner:
            inner.write_bytes(b"inner")
            assert outer.exists()
        assert target.read_bytes() == b"inner"
    assert target.read_bytes() == b"outer"
    assert is_temporary(other)
    assert not is_temporary(Path("a.part.png"))


def test_a_background_iterator_is_bounded_ordered_and_ends_its_thread():
    made, closed = [], threading.Event()

    def count():
        try:
            for number in range(100):
                made.append(number)
                yield number
        finally:
            closed.set()

    running = in_background(count(), 3)
    assert [next(running) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(made) <= 5 + 3
    before = threading.active_count()
    running.close()
    assert closed.is_set()
    assert threading.active_count() == before - 1
    assert list(in_background(iter("abc"), 1)) == ["a", "b", "c"]


def test_an_error_in_a_background_iterator_comes_in_its_turn():
    def fail():
        yield 1
        raise ImageError("bad")

    running = in_background(fail(), 4)
    assert next(running) == 1
    with pytest.raises(ImageError, match="bad"):
        next(running)


def test_events_are_one_object_a_line_and_end_with_the_summary(tmp_path):
    write_pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "c.png").write_text("no picture")
    done = run("upscale", tmp_path, "-o", tmp_path / "out", "-m", "magic", "--events")
    assert done.returncode == 1
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events if event["event"] != "progress"]
    assert kinds == ["start", "result", "result", "result", "end"]
    assert events[0]["files"] == 3
    assert (events[-1]["done"], events[-1]["failed"]) == (2, 1)
    assert {"input", "share", "finished"} <= set(
        next(event for event in events if event["event"] == "progress")
    )


def test_a_line_on_the_terminal_takes_nothing_from_stdout(tmp_path):
    pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
    write_pictures(tmp_path, "a.png", "b.png")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "paragonsr2", "upscale", str(tmp_path), "-m", "magic"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "NO_COLOR": "1"}
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        results = process.stdout.read().decode().split()
    assert results == [str(tmp_path / name) for name in ("a_x2.png", "b_x2.png")]
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while piece := os.read(ours, 1 << 16):
            shown += piece
    os.close(ours)
    assert b"2 files" in shown
    assert b"numpy CPU fp32, tile" in shown
    assert b"\x1b[3" not in shown  # no colour


def test_a_clip_is_told_in_frames(tmp_path, monkeypatch):
    make_clip(tmp_path / "a.mkv", regular(4))
    done = run("upscale", tmp_path, "-m", "magic", "--preset", "ultrafast", "--events")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert next(event for event in events if event["event"] == "progress")["frames"] == 1
    clock = iter([7.0, 8.0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressLine(1, "files", "an engine", clock.__next__) as line:
        line.show("a.mkv", 0.25, 100)
        line.show("a.mkv", 0.5, 125)
        assert line.count == "0/1 files 125 frames 25.0 frames/s"


def test_events_are_silent_unless_asked_for(capsys):
    Events(wanted=False).send("start", {})
    assert not capsys.readouterr().out


def test_quality_and_the_format_flag_reach_the_encoder(tmp_path):
    write_picture(tmp_path / "a.png", Picture(photo_like(48, 48)))
    for quality in ("40", "95"):
        args = ["upscale", tmp_path / "a.png", "-m", "magic", "--format", "jpg"]
        done = run(*args, "--quality", quality, "--suffix", quality)
        assert done.returncode == 0, done.stderr
    low, high = (tmp_path / f"a{quality}.jpg" for quality in ("40", "95"))
    assert low.stat().st_size < high.stat().st_size / 2
    assert pyvips.Image.new_from_file(str(low)).width == 96
    assert np.isfinite(read_picture(high).pixels).all()


def test_names_that_the_command_accepts_are_those_of_the_tables():
    assert set(WRITABLE) <= set(get_args(ImageFormatName))
    assert get_args(CodecName) == tuple(CODECS)
