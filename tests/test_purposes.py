"""Models chosen by what people want."""

from __future__ import annotations

import numpy as np
import pytest
import pyvips
from PIL import Image
from typer.testing import CliRunner

from conftest import photo_like
from paragonsr2.cli.main import app
from paragonsr2.errors import OptionError, WeightsError
from paragonsr2.images.jpeg import jpeg_quality
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.variants import VARIANTS
from paragonsr2.weights.blending import blend
from paragonsr2.weights.catalogue import entries, find
from paragonsr2.weights.purposes import PURPOSES, available, model_for


def test_a_word_leads_to_the_first_of_its_models_that_is_bundled():
    bundled = {(entry.model, entry.scale) for entry in entries()}
    for word, scales in available().items():
        for scale in scales:
            model = model_for(word, scale)
            assert (model, scale) in bundled
            better = PURPOSES[word].models[: PURPOSES[word].models.index(model)]
            assert not any((one, scale) in bundled for one in better)
    for purpose in PURPOSES.values():
        assert all(model.partition(":")[0] in VARIANTS for model in purpose.models)


def test_what_is_not_there_is_said_with_what_is():
    with pytest.raises(OptionError, match="faithful"):
        model_for("nicer", 2)
    with pytest.raises(WeightsError, match="take --scale 2 or 4, or at x3 --for faithful"):
        model_for("drawing", 3)
    with pytest.raises(WeightsError, match=r"take --scale 2 or 4$"):
        model_for("drawing", 5)


def test_the_command_takes_a_word_in_place_of_a_model(tmp_path):
    source = tmp_path / "p.png"
    pyvips.Image.new_from_array(photo_like(20, 24)).write_to_file(source)
    model = model_for("faithful", 2)
    for name, options in (("a", ["--for", "faithful"]), ("b", ["--model", model])):
        done = CliRunner().invoke(
            app, ["upscale", str(source), "-o", f"{tmp_path}/{name}.png", *options]
        )
        assert done.exit_code == 0, done.output
    one, other = (
        pyvips.Image.new_from_file(f"{tmp_path}/{name}.png").numpy() for name in ("a", "b")
    )
    np.testing.assert_array_equal(one, other)


def test_a_word_and_a_model_are_too_much(tmp_path):
    arguments = ["upscale", str(tmp_path), "--for", "faithful", "--model", "realtime"]
    assert CliRunner().invoke(app, arguments).exit_code != 0
    listed = CliRunner().invoke(app, ["models"]).output
    for word in available():
        assert f"--for {word}" in listed


BESIDE = [entry for entry in entries() if entry.kind in ("perceptual", "real", "art")]


@pytest.mark.parametrize("entry", BESIDE, ids=lambda entry: entry.name)
def test_a_strength_goes_from_the_faithful_model_to_the_other(entry):
    lr = photo_like(24, 30)
    ends = [Upscaler(name, entry.scale)(lr) for name in (entry.variant, entry.model)]
    dialled = {s: Upscaler(f"{entry.model}@{s}", entry.scale) for s in (0, 0.02, 0.98, 1)}
    results = {s: upscaler(lr) for s, upscaler in dialled.items()}
    np.testing.assert_array_equal(results[0], ends[0])
    np.testing.assert_array_equal(results[1], ends[1])
    whole = np.abs(ends[1].astype(float) - ends[0]).mean()
    for strength, end in ((0.02, ends[0]), (0.98, ends[1])):
        assert np.abs(results[strength].astype(float) - end).mean() < 0.25 * whole
    assert len({upscaler.digest for upscaler in dialled.values()}) == len(dialled)


def test_a_strength_needs_a_bundled_model_of_another_kind(tmp_path):
    for name in ("stream@0.5", "stream:real@2", "stream:real@x", "stream:real@nan"):
        with pytest.raises(OptionError, match="strength"):
            Upscaler(name, 2)
    for model in ("realtime", "bicubic", "x.onnx"):
        arguments = ["upscale", str(tmp_path), "--model", model, "--strength", "0.5"]
        assert CliRunner().invoke(app, arguments).exit_code != 0


def test_only_one_network_can_be_blended_with_itself():
    models = [find(name, 2).file("onnx").read() for name in ("realtime", "stream")]
    with pytest.raises(WeightsError, match="different networks"):
        blend(*models, 0.5)


@pytest.mark.parametrize("quality", [20, 45, 60, 75, 88, 95])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_quality_of_a_jpeg_is_known_from_its_tables(
    tmp_path, quality, subsampling, progressive
):
    path = tmp_path / "p.jpg"
    image = Image.fromarray(photo_like(24, 32))
    exif = Image.Exif()
    exif[0x010E] = "x" * 3000
    image.save(path, quality=quality, subsampling=subsampling, progressive=progressive, exif=exif)
    assert abs(jpeg_quality(path) - quality) <= 1
    image.convert("L").save(path, quality=quality)
    assert abs(jpeg_quality(path) - quality) <= 1


def test_what_is_no_jpeg_has_no_quality(tmp_path):
    path = tmp_path / "p.jpg"
    Image.fromarray(photo_like(24, 32)).save(path, quality=60)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for end in range(0, 200, 3):
        path.write_bytes(whole[:end] + rng.bytes(int(rng.integers(0, 60))))
        assert jpeg_quality(path) in (None, *range(1, 101))
    for content in (b"", b"\xff\xd8", b"\xff\xd8" + b"\xff\xe0\x00\x02" * 5000):
        path.write_bytes(content)
        assert jpeg_quality(path) is None
    assert jpeg_quality(tmp_path / "absent.jpg") is None


def test_a_model_that_knows_jpeg_is_advised_where_it_helps(tmp_path):
    for name, quality in (("old", 30), ("older", 20), ("good", 97)):
        Image.fromarray(photo_like(24, 32)).save(tmp_path / f"{name}.jpg", quality=quality)

    def said(*names, options=()):
        sources = [str(tmp_path / f"{name}.jpg") for name in names]
        done = CliRunner().invoke(app, ["upscale", "--overwrite", *options, *sources])
        assert done.exit_code == 0, done.output
        return done.stderr

    faithful = ["--model", "realtime"]
    assert "one is a JPEG" in said("old", "good", options=faithful)
    assert "2 are JPEGs" in said("old", "older", options=faithful)
    for names, options in (
        (["old"], []),
        (["good"], faithful),
        (["old"], ["--model", "stream:compressed"]),
        (["old"], ["--model", "bicubic"]),
        (["old"], [*faithful, "--scale", "8"]),
    ):
        assert "stream:compressed mends" not in said(*names, options=options)
