"""Bundled models that change more than sharpness: they restore, and invent nothing that shows."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from benchmark.perceptual import blockiness
from conftest import ROOT
from paragonsr2.measure.quality import luma, psnr, shrink
from paragonsr2.training.drawn import draw_picture
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.catalogue import entries

FOR_THE_EYE = [entry for entry in entries() if entry.kind in ("perceptual", "real", "art")]
RESTORING = [entry for entry in FOR_THE_EYE if entry.kind in ("real", "art")]
PHOTO = ROOT / "examples" / "houses.png"
#: A page of text in several sizes and colours.
DRAWING = 0

#: Models that leave hardly anything of the blocks; with the others a part can still be measured.
BLOCKLESS = {"paragonsr2_stream_x2_real"}
_SOME_BLOCKS = pytest.mark.xfail(reason="a part of the blocks can still be measured", strict=True)

each = pytest.mark.parametrize("entry", FOR_THE_EYE, ids=lambda entry: entry.name)
each_restoring = pytest.mark.parametrize("entry", RESTORING, ids=lambda entry: entry.name)


def photograph(side=192):
    with Image.open(PHOTO) as image:
        return np.asarray(image.convert("RGB"))[:side, :side]


def stored(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=quality)
    with Image.open(buffer) as image:
        return np.asarray(image)


@each
def test_colours_stay(entry):
    lr = photograph()
    sr = Upscaler(entry.model, entry.scale)(lr)
    shift = sr.astype(float).mean(axis=(0, 1)) - lr.astype(float).mean(axis=(0, 1))
    assert np.abs(shift).max() < 0.5


@each
def test_flat_areas_stay_flat(entry):
    """Ground with the noise of a good camera does not get patterns or speckles."""
    rng = np.random.default_rng(0)
    for level in (40, 128, 220):
        lr = np.clip(rng.normal(level, 1.5, (64, 64, 3)), 0, 255).round().astype(np.uint8)
        sr = Upscaler(entry.model, entry.scale)(lr).astype(float)[8:-8, 8:-8]
        assert sr.std() <= 1.1 * lr.std()
        assert np.abs(sr - level).max() < 16


def enlarged_old_jpeg(entry):
    """The original, and how a JPEG of quality 20 comes out of three models."""
    side = 384 // entry.scale * entry.scale
    hr = draw_picture(DRAWING, 20_000)[:side, :side] if entry.kind == "art" else photograph(side)
    old = stored(shrink(hr, entry.scale), 20)
    names = (entry.model, "bicubic", entry.variant)
    return hr, {name: Upscaler(name, entry.scale)(old) for name in names}


@each_restoring
def test_an_old_jpeg_comes_out_better_than_by_a_resize(entry):
    hr, results = enlarged_old_jpeg(entry)
    scores = {name: psnr(luma(sr), luma(hr)) for name, sr in results.items()}
    blocks = {name: blockiness(sr, 8 * entry.scale) - 1 for name, sr in results.items()}
    for other in ("bicubic", entry.variant):
        assert scores[entry.model] > scores[other]
        assert blocks[entry.model] < 0.9 * blocks[other]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, id=entry.name, marks=() if entry.name in BLOCKLESS else _SOME_BLOCKS)
        for entry in RESTORING
    ],
)
def test_the_blocks_of_an_old_jpeg_are_gone(entry):
    _, results = enlarged_old_jpeg(entry)
    blocks = {name: blockiness(sr, 8 * entry.scale) - 1 for name, sr in results.items()}
    assert blocks[entry.model] < 0.25 * blocks["bicubic"]
