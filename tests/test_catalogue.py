"""The bundled weights are what the catalogue says, and the README says what was measured."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image

from conftest import ROOT, photo_like
from paragonsr2.errors import OptionError, WeightsError
from paragonsr2.export.parity import check_parity, odd_inputs
from paragonsr2.measure.cost import network_cost
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.variants import VARIANTS
from paragonsr2.weights import catalogue
from paragonsr2.weights.catalogue import FOLDER, bundled_bytes, bundled_path, entries, find
from paragonsr2.weights.purposes import suited
from paragonsr2.weights.store import load_checkpoint

ENTRIES = pytest.mark.parametrize("entry", entries(), ids=lambda e: e.name)


@ENTRIES
def test_files_and_claims_agree(entry):
    checkpoint = load_checkpoint(
        bundled_path(entry, "safetensors"), arch=entry.variant, scale=entry.scale
    )
    cost = network_cost(checkpoint.network)
    assert cost.parameters == entry.parameters
    assert cost.kmacs_per_pixel == pytest.approx(entry.kmacs_per_pixel, abs=0.01)
    if entry.scale == 2:
        assert entry.kmacs_per_pixel <= VARIANTS[entry.variant].budget
    measured = json.loads((ROOT / "results" / "quality" / f"{entry.name}.json").read_text())
    assert measured["sets"] == entry.quality
    assert entry.training["data"]
    assert (ROOT / "configs" / f"{entry.training['recipe']}.toml").is_file()


@ENTRIES
def test_bundled_onnx_equals_bundled_checkpoint(entry):
    x = photo_like(50, 41)
    onnx = Upscaler(entry.model, entry.scale)(x.astype(np.float32) / 255)
    pytorch = Upscaler(entry.model, entry.scale, backend="torch", device="cpu")
    np.testing.assert_allclose(onnx, pytorch(x.astype(np.float32) / 255), atol=1e-4)


# Noise strains the deepest networks, on one kind of processor more than on another.
@pytest.mark.parametrize(
    "entry", [one for one in entries() if one.variant == "photo"], ids=lambda e: e.name
)
def test_a_bundled_model_passes_the_proof_of_an_export_on_this_processor(entry):
    network = load_checkpoint(bundled_path(entry, "safetensors")).network
    check_parity(bundled_bytes(entry, "onnx"), network, odd_inputs())


@ENTRIES
def test_trained_weights_hold_half_precision(entry):
    network = load_checkpoint(bundled_path(entry, "safetensors")).network.collapse()
    natural = torch.from_numpy(photo_like(20, 20).astype(np.float32) / 255).permute(2, 0, 1)[None]
    for x in (
        natural,
        torch.zeros_like(natural),
        torch.ones_like(natural),
        torch.rand(natural.shape, generator=torch.Generator().manual_seed(0)),
    ):
        with torch.no_grad():
            full, half = network.float()(x), network.half()(x.half()).float()
        assert half.isfinite().all()
        assert 10 * torch.log10(1 / (full - half).square().mean()) >= 50


@pytest.mark.parametrize(
    "entry", [one for one in entries() if one.kind == "fidelity"], ids=lambda e: e.name
)
def test_bundled_weights_beat_every_resize(entry, data):
    from paragonsr2.images.reading import read_picture
    from paragonsr2.measure.quality import evaluate_image, mean_score

    files = sorted((data / "val").iterdir())[:4]

    def quality(model):
        up = Upscaler(model, entry.scale)
        scores = [evaluate_image(up, read_picture(f).pixels, entry.scale) for f in files]
        return mean_score(scores).psnr_y

    ours = quality(entry.model)
    for classical in ("bicubic", "magic:0.0", "magic:0.5", "magic:1.0"):
        assert ours > quality(classical) + (0.7 if entry.scale == 8 else 1.0)


def test_nothing_lies_about_that_is_not_in_the_catalogue():
    named = {about["name"] for entry in entries() for about in entry.files.values()}
    assert {p.name for p in FOLDER.iterdir()} == named | {"catalogue.json"}
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 40_000_000


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    entry = find("realtime", 2)
    for about in entry.files.values():
        (tmp_path / about["name"]).write_bytes(b"changed")
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match="changed"):
        bundled_bytes(entry, "onnx")


def test_every_bundled_model_is_found_by_what_the_command_takes():
    for entry in entries():
        assert find(entry.model, entry.scale) == entry


def test_what_is_not_bundled_is_said():
    with pytest.raises(WeightsError, match="realtime x2"):
        find("pro", 8)
    with pytest.raises(WeightsError, match="no impossible weights of realtime x2"):
        find("realtime:impossible", 2)
    with pytest.raises(OptionError, match=r"bicubic, magic"):
        find("huge", 2)


def test_readme_is_current():
    check = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "readme.py"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert check.returncode == 0, check.stderr


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("quality", [10, 30, 60, 85])
def test_what_the_command_takes_for_a_jpeg_beats_every_resize(scale, quality, data):
    from paragonsr2.images.reading import read_picture
    from paragonsr2.measure.quality import crop_to_multiple, score, shrink

    models = [suited(scale, quality=quality), "bicubic", "magic:0.0", "magic:0.5", "magic:1.0"]
    ups, scores = [Upscaler(model, scale) for model in models], []
    for file in sorted((data / "val").iterdir())[:4]:
        hr = crop_to_multiple(read_picture(file).pixels, scale)
        stored = io.BytesIO()
        Image.fromarray(shrink(hr, scale)).save(stored, "jpeg", quality=quality)
        lr = np.asarray(Image.open(stored))
        scores.append([score(up(lr), hr, scale).psnr_y for up in ups])
    ours, *classical = np.mean(scores, axis=0)
    assert ours > max(classical)


def test_a_large_image_needs_little_memory(tmp_path):
    """48 megapixels to 192, the whole command, below 3 GB at the peak."""
    tile = pyvips.Image.new_from_array(photo_like(600, 800)).copy(interpretation="srgb")
    tile.replicate(10, 10).write_to_file(str(tmp_path / "in.jpg"))
    code = (
        "import resource, sys\n"
        "from paragonsr2.cli.main import app\n"
        f"app(['upscale', {str(tmp_path / 'in.jpg')!r}], standalone_mode=False)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    path, peak = done.stdout.split()
    large = pyvips.Image.new_from_file(path)
    assert (large.width, large.height) == (16000, 12000)
    assert int(peak) * 1024 < 3e9
