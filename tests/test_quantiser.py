"""How strongly a clip was compressed, and the model that is taken by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from clips import make_clip, regular
from conftest import ROOT
from paragonsr2.cli.main import app
from paragonsr2.clips.quantiser import quantiser
from paragonsr2.upscale.by_file import suited_to
from paragonsr2.weights.purposes import QUICK_FOR_CLIPS, USUAL

#: Nothing that moves the quantiser away from what was asked for.
FIXED = {"preset": "fast", "x264-params": "ipratio=1:pbratio=1:aq-mode=0"}


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("qp", [12, 24, 39])
def test_the_quantiser_is_that_of_the_encoder(tmp_path, pix_fmt, qp):
    path = tmp_path / "c.mp4"
    # The encoder counts from as far below zero as a depth adds.
    given = qp + (12 if pix_fmt.endswith("10le") else 0)
    make_clip(path, regular(40), pix_fmt=pix_fmt, options={"qp": str(given), **FIXED})
    assert quantiser(path) == pytest.approx(qp, abs=1.5)


def test_nothing_lost_is_a_quantiser_of_zero(tmp_path):
    path = tmp_path / "c.mp4"
    make_clip(path, regular(4), options={"qp": "0"})
    assert quantiser(path) == 0.0


@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9"])
def test_other_codecs_do_not_tell(tmp_path, codec):
    path = tmp_path / "c.mkv"
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    make_clip(path, regular(3), codec=codec, options=quiet, size=(64, 64))
    assert quantiser(path) is None
    assert suited_to(path, 2) == USUAL


def test_what_cannot_be_read_or_is_too_large_does_not_tell(tmp_path):
    path = tmp_path / "c.mp4"
    make_clip(path, regular(20), options={"qp": "40"})
    assert quantiser(path, max_pixels=64 * 36 - 1) is None
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(whole[: int(rng.integers(len(whole)))])
        for at in rng.integers(0, max(1, len(damaged)), 20):
            damaged[at : at + 1] = rng.bytes(1)
        path.write_bytes(damaged)
        found = quantiser(path)
        assert found is None or -12 <= found <= 51
    assert quantiser(tmp_path / "absent.mp4") is None


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_coarse_clip_gets_a_model_of_its_own(tmp_path, scale):
    taken = {}
    for name, qp in (("coarse", 36), ("fine", 16)):
        path = tmp_path / f"{name}.mp4"
        make_clip(path, regular(2), options={"qp": str(qp)})
        options = ["-o", str(tmp_path / "out"), "--scale", str(scale), "--json"]
        done = CliRunner().invoke(app, ["upscale", str(path), *options])
        assert done.exit_code == 0, done.output
        (result,) = json.loads(done.stdout)["results"]
        taken[Path(result["input"]).stem] = result["model"]
    assert taken == {"coarse": QUICK_FOR_CLIPS[scale].model, "fine": USUAL}


@pytest.mark.parametrize(("scale", "name"), [(2, "clips"), (3, "clips_x3"), (4, "clips_x4")])
def test_at_the_border_both_models_were_measured_about_equal(scale, name):
    found = json.loads((ROOT / "results" / "quality" / f"{name}.json").read_text())
    chosen, gains = QUICK_FOR_CLIPS[scale], []
    for rows in (found["clip"], found["pictures"]):
        gain = [row["psnr_y"][chosen.model] - row["psnr_y"][USUAL] for row in rows]
        gains.append(np.interp(chosen.above, [row["quantiser"] for row in rows], gain))
    assert abs(np.mean(gains)) < 0.1
