"""The command as people meet it: exit codes, one-line errors, no traceback, no partial file."""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch

from conftest import photo_like, stirred
from paragonsr2.images.header import Picture
from paragonsr2.images.reading import read_picture
from paragonsr2.images.writing import write_picture
from paragonsr2.network.generator import build
from paragonsr2.variants import VARIANTS
from paragonsr2.weights.catalogue import entries
from paragonsr2.weights.purposes import suited
from paragonsr2.weights.store import save_checkpoint
from test_weights import Bomb


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "paragonsr2", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, **options,
    )  # fmt: skip


def fails_cleanly(result, code):
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2, result.stderr
    assert result.stderr.strip()
    assert not result.stdout.strip()


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    write_picture(path, Picture(photo_like(40, 56)))
    return path


def light(code):
    """Processor seconds of a fresh interpreter that runs ``code`` and loads nothing heavy."""

    def spent():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    best = 1e9
    heavy = "{'torch', 'onnxruntime', 'pyvips', 'PIL', 'ray'}"
    check = f"\nimport sys; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    for _ in range(5):
        started = spent()
        done = subprocess.run(
            [sys.executable, "-c", code + check], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        best = min(best, spent() - started)
    return best


def test_importing_is_light():
    assert light("import paragonsr2") < 0.5


def test_help_is_light():
    code = """
from typer.testing import CliRunner
from paragonsr2.cli.main import app
assert CliRunner().invoke(app, ['--help']).exit_code == 0
"""
    assert light(code) < 0.5


def test_a_folder_goes_through_and_a_bad_file_does_not_stop_it(tmp_path):
    folder = tmp_path / "in" / "deeper"
    folder.mkdir(parents=True)
    write_picture(folder / "good.png", Picture(photo_like(20, 30)))
    write_picture(tmp_path / "in" / "grey.jpg", Picture(photo_like(20, 30, 1)))
    (folder / "bad.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("ignored")
    out = tmp_path / "out"
    result = run("upscale", tmp_path / "in", "-o", out, "--model", "magic", "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert (report["done"], report["failed"], report["scale"]) == (2, 1, 2)
    assert read_picture(out / "deeper" / "good.png").pixels.shape == (40, 60, 3)
    assert read_picture(out / "grey.jpg").pixels.shape == (40, 60, 1)
    assert sorted(p.name for p in out.rglob("*.*")) == ["good.png", "grey.jpg"]
    assert len(result.stderr.splitlines()) == 1
    assert "bad.jpg" in result.stderr


def test_results_are_on_stdout_and_existing_ones_are_kept(photo):
    first = run("upscale", photo, "--model", "bicubic", "--scale", "3")
    target = photo.with_name("photo_x3.png")
    assert first.returncode == 0
    assert first.stdout.strip() == str(target)
    before = target.stat().st_mtime_ns
    again = run("upscale", photo, "--model", "bicubic", "--scale", "3")
    assert again.returncode == 0
    assert "--overwrite" in again.stderr
    assert target.stat().st_mtime_ns == before
    replaced = run("upscale", photo, "--model", "bicubic", "--scale", "3", "--overwrite")
    assert replaced.stdout.strip() == str(target)


@pytest.mark.parametrize("image_format", ["png", "jpg", "webp", "tiff", "avif"])
def test_formats(photo, tmp_path, image_format):
    result = run(
        "upscale", photo, "-o", tmp_path / "o", "-m", "magic:1.0", "--format", image_format
    )
    assert result.returncode == 0, result.stderr
    (made,) = (tmp_path / "o").iterdir()
    assert read_picture(made).pixels.shape == (80, 112, 3)


def make_bad(tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    write_picture(path, Picture(photo_like(64, 64)))
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-700])
    elif kind == "text":
        path = path.with_suffix(".jpg")
        path.write_text("hello")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "bomb":
        pyvips.Image.black(20000, 20000).write_to_file(str(path), compression=9)
    return path


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "missing", "bomb"])
def test_bad_input(tmp_path, kind):
    path = make_bad(tmp_path, kind)
    before = sorted(tmp_path.iterdir())
    result = run("upscale", path, "--model", "magic")
    fails_cleanly(result, 1)
    assert sorted(tmp_path.iterdir()) == before
    if kind == "bomb":
        assert "250" in result.stderr
        assert "--max-megapixels" in result.stderr


def test_one_pixel_is_an_image(tmp_path):
    write_picture(tmp_path / "dot.png", Picture(np.full((1, 1, 3), 77, np.uint8)))
    assert run("upscale", tmp_path / "dot.png", "--model", "magic").returncode == 0
    assert (read_picture(tmp_path / "dot_x2.png").pixels == 77).all()


def test_the_limit_can_be_lifted_and_lowered(photo, tmp_path):
    fails_cleanly(run("upscale", photo, "-m", "magic", "--max-megapixels", "0.001"), 1)
    assert run("upscale", photo, "-m", "magic", "--max-megapixels", "1").returncode == 0


def test_unwritable_output(photo, tmp_path):
    (tmp_path / "file").write_text("in the way")
    fails_cleanly(run("upscale", photo, "-m", "magic", "-o", tmp_path / "file" / "out"), 1)
    assert not list(tmp_path.glob(".*part*"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--model", "huge"], 2),
        (["--model", "img.png"], 2),
        (["--model", "magic", "--device", "cuda"], 2),
        (["--model", "magic:x"], 2),
        (["--model", "magic:2"], 2),
        (["--model", "magic", "--scale", "5"], 2),
        (["--model", "magic", "--tile", "8"], 2),
        (["--model", "magic", "--tile", "big"], 2),
        (["--model", "pro", "--scale", "8"], 3),
        (["--model", "none.onnx"], 3),
        (["--model", "none.safetensors"], 3),
    ],
)
def test_wrong_arguments(photo, arguments, code):
    fails_cleanly(run("upscale", photo, *arguments), code)


def test_an_output_never_replaces_an_input(photo, tmp_path):
    before = photo.read_bytes()
    fails_cleanly(run("upscale", photo, "-m", "magic", "-o", tmp_path, "--overwrite"), 2)
    assert photo.read_bytes() == before


def test_bad_models(photo, tmp_path):
    save_checkpoint(tmp_path / "r.safetensors", stirred(build("realtime", 2)), "realtime")
    fails_cleanly(
        run("export", "-m", tmp_path / "r.safetensors", "-s", "4", "-o", tmp_path / "o"), 3
    )
    assert not (tmp_path / "o").exists()
    torch.save({"params": Bomb(str(tmp_path / "ran"))}, tmp_path / "bomb.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Bomb(str(tmp_path / "ran"))))
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    for name in ("bomb.pth", "raw.pth", "bad.onnx"):
        fails_cleanly(run("upscale", photo, "--model", tmp_path / name), 3)
        fails_cleanly(run("inspect", tmp_path / name), 3)
    assert not (tmp_path / "ran").exists()
    fails_cleanly(run("upscale", photo, "-m", tmp_path / "r.safetensors", "-s", "3"), 2)


def test_a_checkpoint_upscales_through_torch(photo, tmp_path):
    save_checkpoint(tmp_path / "r.safetensors", stirred(build("realtime", 2)), "realtime")
    # Its weights are random, so its colours may be wrong.
    result = run(
        "upscale", photo, "--model", tmp_path / "r.safetensors", "-o", tmp_path / "o.png",
        "--unchecked",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "torch" in result.stderr
    about = json.loads(run("inspect", tmp_path / "r.safetensors", "--json").stdout)
    assert about["variant"] == "realtime"
    assert about["kmacs_per_pixel"] <= 18


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("realtime", "bundled model"),
        ("picture.png", ".safetensors"),
        ("magic", "without a model file"),
    ],
)
def test_what_is_no_model_file_is_not_inspected(name, said):
    done = run("inspect", name)
    fails_cleanly(done, 2)
    assert said in done.stderr


def test_models_starts_with_what_each_is_for():
    short, long = run("models").stdout, run("models", "--long").stdout
    assert short.splitlines()[0] == f"realtime: {VARIANTS['realtime'].purpose}"
    entry = entries()[0]
    digest = entry.files["onnx"]["sha256"]
    assert digest not in short
    assert digest in long
    assert digest in run("models", "--json").stdout


def test_evaluate_prints_the_contract(tmp_path):
    folder = tmp_path / "Mini" / "HR"
    write_picture(folder / "a.png", Picture(photo_like(41, 55)))
    write_picture(folder / "b.png", Picture(photo_like(32, 48, 1)))
    result = run("evaluate", "--model", "bicubic", "--scale", "2", folder, "--json",
                 "--result", tmp_path / "r.json")  # fmt: skip
    report = json.loads(result.stdout)
    assert set(report) == {"model", "scale", "sets"}
    assert set(report["sets"]["Mini"]) == {"psnr_y", "ssim_y", "images"}
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["machine"]["cores"]
    assert written["sets"] == report["sets"]


@pytest.mark.parametrize(("scale", "model"), [(3, "realtime:compressed"), (4, "stream:compressed")])
def test_a_coarse_jpeg_gets_advice_that_can_be_taken(tmp_path, scale, model):
    assert any((entry.model, entry.scale) == (model, scale) for entry in entries())
    for name, quality in (("coarse.jpg", 60), ("fine.jpg", 98), ("plain.png", None)):
        path = tmp_path / name
        write_picture(path, Picture(photo_like(40, 56)), quality=quality or 95)
        said = run("upscale", path, "--scale", scale, "-m", "realtime").stderr
        assert (f"--model {model}" in said) == (name == "coarse.jpg")
    taken = run("upscale", tmp_path / "coarse.jpg", "--scale", scale, "-m", model, "--overwrite")
    assert taken.returncode == 0
    assert "--model" not in taken.stderr


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_coarse_jpegs_get_a_model_of_their_own(tmp_path, scale):
    model, coarse = suited(scale, quality=60), tmp_path / "in" / "coarse.jpg"
    for name, quality in (("coarse.jpg", 60), ("fine.jpg", 98), ("plain.png", 95)):
        write_picture(coarse.with_name(name), Picture(photo_like(40, 56)), quality=quality)
    done = run("upscale", coarse.parent, "-o", tmp_path / "out", "--scale", scale, "--json")
    report = json.loads(done.stdout)
    models = {Path(one["input"]).name: one["model"] for one in report["results"]}
    assert models == {"coarse.jpg": model, "fine.jpg": "realtime", "plain.png": "realtime"}
    assert set(report["model"].split(", ")) == {"realtime", model}
    for name, chosen in models.items():
        one = tmp_path / name
        run("upscale", coarse.with_name(name), "-o", one, "--scale", scale, "-m", chosen)
        (made,) = (tmp_path / "out").rglob(f"{one.stem}*")
        assert made.read_bytes() == one.read_bytes()


def test_short_help_and_completion_work():
    for arguments in (["-h"], ["upscale", "-h"]):
        assert "Usage: paragonsr2" in run(*arguments).stdout
    asked = {"_PARAGONSR2_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    done = run(env={**os.environ, **asked, "COMP_WORDS": "paragonsr2 ups"})
    assert done.stdout.split() == ["upscale"]
    asked["COMP_CWORD"] = "3"
    done = run(env={**os.environ, **asked, "COMP_WORDS": "paragonsr2 upscale --format j"})
    assert done.stdout.split() == ["jpg", "jxl"]


def test_an_unknown_output_suffix_is_refused_and_no_folder_is_made(photo, tmp_path):
    for name in ("x.bmp", "x.heic", "x.mp4"):
        result = run("upscale", photo, "-m", "magic", "-o", tmp_path / name)
        fails_cleanly(result, 2)
        assert ".png" in result.stderr
        assert ".webp" in result.stderr
        assert not (tmp_path / name).exists()
    result = run("upscale", photo, "-m", "magic", "-o", tmp_path / "x.png", "--format", "jpg")
    fails_cleanly(result, 2)
    # The message says how to get a folder of this name.
    assert run("upscale", photo, "-m", "magic", "-o", f"{tmp_path / 'x.bmp'}/").returncode == 0
    assert (tmp_path / "x.bmp" / "photo.png").is_file()


def pipe(content, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "paragonsr2", "upscale", *map(str, arguments)],
        input=content, capture_output=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_standard_input_and_output(photo, tmp_path, image_format):
    source, target = tmp_path / f"in.{image_format}", tmp_path / f"out.{image_format}"
    write_picture(source, read_picture(photo))
    assert run("upscale", source, "-m", "magic", "-o", target).returncode == 0
    for arguments in (["-", "-o", "-"], ["-"], [source, "-o", "-"]):
        done = pipe(source.read_bytes(), *arguments, "-m", "magic")
        assert done.returncode == 0, done.stderr
        assert done.stdout == target.read_bytes()
        assert b"1 done" in done.stderr
    saved = tmp_path / "saved.png"
    done = pipe(source.read_bytes(), "-", "-o", saved, "-m", "magic")
    assert done.stdout.decode().strip() == str(saved)
    assert read_picture(saved).pixels.shape == (80, 112, 3)


def test_standard_streams_that_cannot_be_are_refused(photo, tmp_path):
    content, other = photo.read_bytes(), tmp_path / "other.png"
    other.write_bytes(content)
    for code, *arguments in (
        (2, "-", photo), (2, "-", "--json"), (2, photo, other, "-o", "-"), (1, "-"),
    ):  # fmt: skip
        done = pipe(b"no image" if code == 1 else content, *arguments, "-m", "magic")
        assert done.returncode == code, done.stderr
        assert done.stdout == b""
        assert b"Traceback" not in done.stderr
        assert b"/tmp" not in done.stderr.replace(bytes(photo), b"")


def test_interrupt_ends_with_130(tmp_path):
    code = (
        "import paragonsr2.upscale.job as job\n"
        "def stop(*a, **k): raise KeyboardInterrupt\n"
        "job.run_tasks = stop\n"
        "import sys; from paragonsr2.cli.main import main\n"
        f"sys.argv = ['paragonsr2', 'upscale', {str(tmp_path / 'x.png')!r}, '-m', 'magic']\n"
        "main()\n"
    )
    write_picture(tmp_path / "x.png", Picture(photo_like(8, 8)))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert "0 of 1 files" in done.stderr
    assert "same command" in done.stderr
