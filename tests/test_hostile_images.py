"""What hostile or enormous images may cost, and what a killed run may leave: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import pyvips

from conftest import ROOT, photo_like
from fuzz.bombs import make_bombs
from paragonsr2.errors import ImageError
from paragonsr2.images.reading import ImageReader, read_picture
from paragonsr2.serve.preview import make_preview

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


# By hand: what this libvips has no saver for, or may be built without.
OTHER_KINDS = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "svg.gz": b"\x1f\x8b\x08\0\0\0\0\0",
    "pdf": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>",
    "csv": b"1,2\n3,4\n",
    "mat": b"2 2\n1 2\n3 4\n",
    "ppm": b"P6\n2 2\n255\n" + bytes(12),
    "pfm": b"PF\n1 1\n-1.0\n" + bytes(12),
    "bmp": b"BM" + bytes(64),
    "ico": b"\0\0\1\0\1\0" + bytes(64),
    "psd": b"8BPS\0\1" + bytes(64),
    "hdr": b"#?RADIANCE\n\n-Y 1 +X 1\n" + bytes(4),
    "exr": b"\x76\x2f\x31\x01" + bytes(64),
    "fits": b"SIMPLE  =                    T" + bytes(64),
    "nii": (348).to_bytes(4, "little") + bytes(400),
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64),
    "mvg": b"push graphic-context\nimage over 0,0 0,0 'https://example.com/a.png'\n",
    "msl": b'<?xml version="1.0"?><image><read filename="/etc/passwd"/></image>',
    "mp4": b"\0\0\0\x18ftypisom" + bytes(64),
}


def other_kinds():
    """Files of kinds that are not read, each under the name of one that is."""
    pixels = pyvips.Image.new_from_array(photo_like(16, 16))
    with tempfile.TemporaryDirectory() as folder:
        pixels.vipssave(f"{folder}/x.v")
        yield "v", Path(folder, "x.v").read_bytes()
    yield from OTHER_KINDS.items()


@pytest.mark.parametrize(("kind", "content"), list(other_kinds()), ids=lambda value: str(value)[:8])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".svg", ""])
def test_other_kinds_never_reach_a_loader(tmp_path, monkeypatch, kind, content, suffix):
    path = tmp_path / f"{kind}{suffix}"
    path.write_bytes(content)

    def reached(*_: object, **__: object) -> None:
        pytest.fail("libvips was asked to open it")

    monkeypatch.setattr(pyvips.Operation, "call", reached)
    monkeypatch.setattr(pyvips.Image, "new_from_file", reached)
    for read in (read_picture, ImageReader):
        with pytest.raises(ImageError, match="not an image"):
            read(path)
    # Its message names no path, which is no business of a visitor's.
    with pytest.raises(ImageError, match="cannot be read"):
        make_preview(path, tmp_path / "preview.png", max_pixels=1000)


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"II*\0", b"\xff\xd8\xff", b"GIF89a"])
def test_a_loader_is_chosen_by_the_first_bytes_alone(tmp_path, start):
    """Whatever follows them, and would be taken for another kind by those who search on."""
    for kind, content in other_kinds():
        (tmp_path / kind).write_bytes(start + content)
        with pytest.raises(ImageError):
            read_picture(tmp_path / kind)


HOST = """
import json, logging, os, sys
import pyvips

def state():
    loggers = {
        name: (logger.level, logger.disabled, len(logger.handlers))
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and not name.startswith("paragonsr2")
    }
    cache = pyvips.cache_get_max(), pyvips.cache_get_max_mem(), pyvips.cache_get_max_files()
    root = logging.root.level, len(logging.root.handlers), logging.root.manager.disable
    return {"environ": dict(os.environ), "cache": cache, "root": root, "loggers": loggers}

def loads_other_kinds():
    return pyvips.Image.new_from_file(sys.argv[2]).avg()

before = state()
import paragonsr2
import paragonsr2.images.formats, paragonsr2.images.reading, paragonsr2.images.writing
from pathlib import Path
path = Path(sys.argv[1])
picture = paragonsr2.images.reading.read_picture(path)
paragonsr2.images.writing.write_picture(path.with_suffix(".webp"), picture)
picture = paragonsr2.Upscaler("realtime", 2)(picture.pixels)
after = state()
new = {name for name in after["loggers"] if name not in before["loggers"]}
after["loggers"] = {k: v for k, v in after["loggers"].items() if k not in new}
print(json.dumps({"same": before == after, "before": before, "after": after,
                  "blocked": False if loads_other_kinds() == 2.5 else True}))
"""


def test_the_host_program_keeps_its_settings(tmp_path):
    """Environment, loggers, libvips' cache and what libvips may load, with the package in use."""
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    pyvips.Image.new_from_array(photo_like(16, 16)).write_to_file(str(tmp_path / "a.png"))
    report = small_program(HOST, tmp_path / "a.png", tmp_path / "a.csv")
    assert report["before"] == report["after"]
    assert report["same"]
    assert not report["blocked"]


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
up = module.Upscaler.around(Cheap(2, 0.0), tile=128)
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
    report = fuzz_program("run", "--count", "60", "--seed", "7")
    assert sum(report["counts"].values()) == 60


def test_spoiled_clips_are_outputs_or_one_line():
    report = fuzz_program("run", "--clips", "--count", "12", "--seed", "7")
    assert sum(report["counts"].values()) == 12


def test_killed_runs_leave_whole_files_only():
    assert fuzz_program("kill", "--kills", "3", "--seed", "3")["kills"] == 3
