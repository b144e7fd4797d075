"""A result that cannot be right is a failure of the model, and not a picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from clips import make_clip, regular
from conftest import photo_like
from fuzz.hostile_models import enlarging
from paragonsr2.errors import WrongResultError
from paragonsr2.images.header import Picture
from paragonsr2.images.reading import read_picture
from paragonsr2.images.writing import write_picture
from paragonsr2.measure.quality import crop_to_multiple, shrink
from paragonsr2.training.drawn import draw_picture
from paragonsr2.upscale.backends import ClassicalBackend
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.catalogue import entries
from test_cli import run


class Wrong(ClassicalBackend):
    """A kernel after which something goes wrong."""

    def __init__(self, spoil):
        super().__init__(2, 0.0)
        self.spoil = spoil

    def run(self, x):
        return self.spoil(super().run(x)).astype(np.float32)


WRONG = {
    "black": lambda x: x * 0,
    "white": lambda x: x * 0 + 1,
    "grey": lambda x: x * 0 + 0.5,
    "255 times as large": lambda x: x * 255,
    "255 times as small": lambda x: x / 255,
    "brighter": lambda x: x + 10 / 255,
    "one channel": lambda x: x * np.array([1, 0.5, 1]).reshape(1, 3, 1, 1),
    "negative": lambda x: -x,
}


@pytest.mark.parametrize("tile", [32, "off"])
@pytest.mark.parametrize("name", WRONG)
def test_a_result_that_cannot_be_right_is_refused(name, tile):
    pixels = photo_like(80, 90)
    backend = Wrong(WRONG[name])
    with pytest.raises(WrongResultError, match="--unchecked"):
        Upscaler.around(backend, tile=tile)(pixels)
    assert Upscaler.around(backend, check_results=False)(pixels).shape == (160, 180, 3)


def halftone():
    """Black dots on white: what a sharp kernel makes of them is clipped."""
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[::2, ::2] = 0
    return pixels


def speck():
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[30, 30] = 255
    return pixels


def with_alpha():
    """Invisible pixels of any colour."""
    pixels = photo_like(64, 64, 4)
    pixels[:, :32, 3] = 0
    pixels[:, :32, :3] = 200
    return pixels


RIGHT = {
    "photo": photo_like(40, 50),
    "grey": photo_like(40, 50, 1),
    "deep": photo_like(40, 50).astype(np.uint16) * 257,
    "alpha": with_alpha(),
    "invisible": photo_like(40, 50, 4) * np.array([1, 1, 1, 0], np.uint8),
    "black": np.zeros((40, 50, 3), np.uint8),
    "white": np.full((40, 50, 3), 255, np.uint8),
    "nearly flat": photo_like(40, 50) // 64,
    "halftone": halftone(),
    "speck": speck(),
    "noise": np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8),
    "bright floats": photo_like(40, 50).astype(np.float32) / 25,
    "one pixel": photo_like(1, 1),
    "row": photo_like(1, 3),
    "tiny": np.eye(5, dtype=np.uint8)[..., None].repeat(3, 2) * 255,
}


@pytest.mark.parametrize("model", ["magic", "magic:1.0", "bicubic", "realtime"])
@pytest.mark.parametrize("name", RIGHT)
def test_a_result_that_is_right_passes(name, model, upscalers):
    pixels = RIGHT[name]
    height, width, channels = pixels.shape
    assert upscalers[model](pixels).shape == (2 * height, 2 * width, channels)


@pytest.mark.parametrize(
    "entry", [e for e in entries() if e.kind in ("compressed", "real", "art")], ids=lambda e: e.name
)
def test_small_text_in_an_old_jpeg_is_not_taken_for_a_broken_model(entry):
    """A model that restores may take such text for the marks of the encoder."""
    up = Upscaler(entry.model, entry.scale)
    for index in (4, 8):
        text = shrink(crop_to_multiple(draw_picture(index, 20_000), entry.scale), entry.scale)
        stored = io.BytesIO()
        Image.fromarray(text).save(stored, "jpeg", quality=20)
        up(Image.open(stored))


@pytest.fixture(scope="module")
def upscalers():
    return {model: Upscaler(model, 2) for model in ("magic", "magic:1.0", "bicubic", "realtime")}


def test_a_wrong_picture_or_clip_is_a_failure_and_is_not_written(tmp_path):
    up = Upscaler.around(Wrong(WRONG["black"]))
    write_picture(tmp_path / "a.png", Picture(photo_like(40, 50)))
    make_clip(tmp_path / "a.mkv", regular(4))
    for suffix in ("png", "mkv"):
        target = tmp_path / f"out.{suffix}"
        outcome = run_task(Task(tmp_path / f"a.{suffix}", target), up)
        assert outcome.status == "failed"
        assert "all one colour" in outcome.message
        assert not target.exists()


def test_the_command_refuses_black_pictures_unless_told(tmp_path):
    model = enlarging()
    kernel = model.graph.initializer[0]
    kernel.raw_data = bytes(len(kernel.raw_data))
    (tmp_path / "black.onnx").write_bytes(model.SerializeToString())
    write_picture(tmp_path / "a.png", Picture(photo_like(40, 50)))
    files = (tmp_path / "a.png", "-o", tmp_path / "o.png")
    command = ("upscale", *files, "-m", tmp_path / "black.onnx")
    refused = run(*command)
    assert refused.returncode == 1
    assert "all one colour" in refused.stderr
    assert not (tmp_path / "o.png").exists()
    assert run(*command, "--unchecked").returncode == 0
    assert read_picture(tmp_path / "o.png").pixels.max() == 0
