"""Standard streams that are closed, broken or full: the work goes on, and what is lost is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import photo_like
from paragonsr2.cli.output import shown
from paragonsr2.images.header import Picture
from paragonsr2.images.reading import read_picture
from paragonsr2.images.writing import write_picture

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        write_picture(tmp_path / "in" / f"{number}.png", Picture(photo_like(20, 24)))
    return tmp_path


def shell(folder, line):
    """Run a line in which ``$P`` is the command; its exit status is that of the command."""
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "P": f"{sys.executable} -m paragonsr2"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


def are_done(folder):
    results = sorted((folder / "out").iterdir())
    assert len(results) == 3
    assert all(read_picture(path).pixels.shape == (40, 48, 3) for path in results)


@pytest.mark.parametrize(
    "streams",
    [
        "2>&-",
        ">&-",
        ">&- 2>&-",
        "<&- >&- 2>&-",
        "| head -0",
        "2>&1 | head -0",
        "--events | head -1",
        pytest.param("2>/dev/full", marks=FULL),
    ],
)
def test_the_work_goes_on_without_readers(pictures, streams):
    done = shell(pictures, f"$P upscale in -o out/ -m magic {streams}")
    assert done.returncode == 0, done.stderr
    are_done(pictures)


@pytest.mark.parametrize("streams", ["2>&-", "| head -0"])
def test_a_failure_stays_a_failure_without_readers(pictures, streams):
    (pictures / "in" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert shell(pictures, f"$P upscale in -o out/ -m magic {streams}").returncode == 1
    are_done(pictures)
    assert shell(pictures, f"$P upscale none -o out/ {streams}").returncode == 1
    assert shell(pictures, f"$P upscale in -m none.onnx {streams}").returncode == 3


@FULL
@pytest.mark.parametrize("what", ["upscale in -o out/ -m magic", "models --json", "--help"])
def test_a_full_standard_output_is_one_line(pictures, what):
    done = shell(pictures, f"$P {what} >/dev/full")
    assert done.returncode == 1
    assert "standard output cannot be written: No space left" in done.stderr
    assert done.stderr.count("\n") <= 2
    if "out/" in what:
        are_done(pictures)


@FULL
def test_a_result_that_does_not_fit_on_standard_output_is_told(pictures):
    done = shell(pictures, "$P upscale in/0.png -o - -m magic >/dev/full")
    assert done.returncode == 1
    assert "standard output cannot be written" in done.stderr


def test_a_library_cannot_print_into_a_file(tmp_path):
    """A file that is opened while standard error is closed must not get its number."""
    code = (
        "import os, paragonsr2.cli.output as o; o.StandardStreams(); "
        "f = open('f', 'w'); os.write(2, b'warning'); assert f.fileno() > 2"
    )
    shell(tmp_path, f'{sys.executable} -c "{code}" 2>&-')
    assert (tmp_path / "f").read_bytes() == b""


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain.png", "plain.png"),
        ("Grüße 写真.png", "Grüße 写真.png"),
        ("\x1b[2Jred\n.png", "\\x1b[2Jred\\n.png"),
        ("right\u202eleft", "right\\u202eleft"),
        ("byte\udcff", "byte\\udcff"),
        ("\x9b1m", "\\x9b1m"),
    ],
)
def test_control_characters_are_escaped(text, seen):
    assert shown(text) == seen


def test_names_with_control_characters_are_escaped_for_people_and_kept_for_programs(tmp_path):
    name = "\x1b[31mred\n.png"
    write_picture(tmp_path / name, Picture(photo_like(9, 9)))
    (tmp_path / name).rename(tmp_path / "\x1b\udcff.png")
    done = shell(tmp_path, "$P upscale . -m magic --json")
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)["results"][0]["output"]
    assert (tmp_path / output).exists()
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    done = shell(tmp_path, "$P upscale $'\\e[31mred\\n.png' -m magic")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert "\\x1b[31mred\\n.png" in done.stderr
    assert len(done.stderr.splitlines()) == 2
