"""Tiling, channels and depth."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import photo_like
from paragonsr2.errors import BackendError, ImageError, TileError
from paragonsr2.upscale import upscaler as upscaler_module
from paragonsr2.upscale.backends import (
    ClassicalBackend,
    TorchBackend,
    providers,
    run_finite,
)
from paragonsr2.upscale.tiling import auto_tile, plan, spans
from paragonsr2.upscale.upscaler import Upscaler


def upscaler_of(backend, tile, monkeypatch):
    monkeypatch.setattr(upscaler_module, "open_backend", lambda *_, **__: backend)
    return Upscaler("under test", tile=tile)


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    tile=st.integers(16, 128),
    halo=st.integers(0, 70),
    multiple=st.sampled_from([1, 8, 16]),
)
@settings(deadline=None)
def test_tiles_cover_every_pixel_once(height, width, tile, halo, multiple):
    count = np.zeros((height, width), dtype=int)
    for part in plan(height, width, tile, halo, multiple):
        for span, length in ((part.y, height), (part.x, width)):
            assert 0 <= span.read_start <= span.start < span.stop <= span.read_stop <= length
            assert span.read_start % multiple == 0
            assert span.start - span.read_start >= min(halo, span.start)
            assert span.read_stop - span.stop >= min(halo, length - span.stop)
        count[part.y.start : part.y.stop, part.x.start : part.x.stop] += 1
    assert (count == 1).all()


def test_tiny_tiles_are_refused():
    with pytest.raises(TileError, match="--tile 16"):
        spans(100, 15, 0, 1)


@pytest.mark.parametrize("budget", [0, 10**6, 10**9, 10**12])
def test_auto_tile_is_usable(budget):
    tile = auto_tile(budget, 1000, 60, 16)
    assert tile >= 16
    assert tile % 16 == 0


@pytest.mark.parametrize("variant", ["realtime", "stream"])
@pytest.mark.parametrize("scale", [2, 3])
def test_tiled_equals_whole_for_random_sizes(make_stirred, monkeypatch, variant, scale):
    backend = TorchBackend(make_stirred(variant, scale).collapse(), device="cpu")
    rng = np.random.default_rng(scale)
    sizes = [(1, 1), (1, 300), (300, 1)]
    sizes += [tuple(rng.integers(1, 301, 2)) for _ in range(22)]
    whole = upscaler_of(backend, "off", monkeypatch)
    for height, width in sizes:
        x = rng.random((height, width, 3), dtype=np.float32)
        tiled = upscaler_of(backend, int(rng.integers(16, 200)), monkeypatch)
        np.testing.assert_allclose(tiled(x), whole(x), atol=1e-5)


def test_photo_is_exact_when_the_halo_covers_its_reach(make_small, monkeypatch):
    network = make_small("photo", blocks=2).collapse()
    network.tile_halo = network.reach
    backend = TorchBackend(network, device="cpu")
    for height, width, tile in ((150, 131, 16), (70, 201, 48), (33, 40, 32)):
        x = np.random.default_rng(1).random((height, width, 3), dtype=np.float32)
        tiled = upscaler_of(backend, tile, monkeypatch)(x)
        np.testing.assert_allclose(tiled, upscaler_of(backend, "off", monkeypatch)(x), atol=1e-5)


@pytest.mark.parametrize("alpha", [None, 0.0, 1.0])
def test_classical_tiles_are_exact(alpha, monkeypatch):
    backend = ClassicalBackend(2, alpha)
    x = photo_like(90, 61).astype(np.float32) / 255
    tiled = upscaler_of(backend, 17, monkeypatch)(x)
    np.testing.assert_allclose(tiled, upscaler_of(backend, "off", monkeypatch)(x), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_channels_and_depth_are_kept(channels, dtype):
    x = photo_like(20, 31, channels)
    if dtype == np.uint16:
        x = x.astype(np.uint16) * 257
    elif dtype == np.float32:
        x = x.astype(np.float32) / 255
    out = Upscaler("magic:0.5", 3)(x)
    assert out.shape == (60, 93, channels)
    assert out.dtype == dtype


def test_grey_planes_without_a_channel_axis_work():
    assert Upscaler("magic", 2)(photo_like(8, 9, 1)[:, :, 0]).shape == (16, 18)


def test_sixteen_bits_survive():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None, :, None].repeat(8, 0).repeat(3, 2)
    out = Upscaler("magic", 2)(ramp)
    assert len(np.unique(out)) > 120


def test_transparent_pixels_do_not_darken_their_neighbours():
    pixels = np.zeros((24, 24, 4), dtype=np.uint8)
    pixels[:, :12] = (220, 180, 90, 255)
    out = Upscaler("magic", 2)(pixels)
    visible = out[out[:, :, 3] > 8]
    assert np.abs(visible[:, :3].astype(int) - (220, 180, 90)).max() <= 8


def test_opaque_alpha_stays_opaque_and_colour_is_as_without():
    rgb = photo_like(16, 16)
    rgba = np.dstack([rgb, np.full((16, 16), 255, np.uint8)])
    up = Upscaler("magic:1.0", 2)
    out = up(rgba)
    assert (out[:, :, 3] == 255).all()
    np.testing.assert_array_equal(out[:, :, :3], up(rgb))


def test_what_is_no_image_is_refused():
    up = Upscaler("bicubic", 2)
    for bad in (np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(ImageError):
            up(bad)


class Failing(ClassicalBackend):
    """Gives NaN, and in float32 what it is told."""

    def __init__(self, twin):
        super().__init__(2, 0.0)
        self.twin, self.asked = twin, 0

    def run(self, x):
        return np.full_like(super().run(x), np.nan)

    def in_fp32(self):
        self.asked += 1
        return self.twin


def test_nan_is_tried_once_in_float32_then_an_error():
    x = np.full((1, 3, 4, 4), 0.5, np.float32)
    backend = Failing(ClassicalBackend(2, 0.0))
    np.testing.assert_allclose(run_finite(backend, x), 0.5, atol=1e-6)
    assert backend.asked == 1
    with pytest.raises(BackendError, match="in float32 too"):
        run_finite(Failing(Failing(None)), x)
    with pytest.raises(BackendError, match=r"NaN or Inf$"):
        run_finite(Failing(None), x)


def test_a_narrow_torch_backend_has_a_wide_twin(make_stirred):
    network = make_stirred("realtime").collapse()
    narrow = TorchBackend(network, device="cpu", precision="bf16")
    x = np.random.default_rng(0).random((1, 3, 24, 24), dtype=np.float32)
    wide = TorchBackend(network, device="cpu", precision="fp32")
    assert wide.in_fp32() is None
    np.testing.assert_allclose(narrow.in_fp32().run(x), wide.run(x), atol=1e-6)
    assert np.abs(narrow.run(x) - wide.run(x)).max() > 1e-5


def test_providers_are_chosen_openly():
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    tensorrt = "TensorrtExecutionProvider"
    assert [name for name, _ in providers("auto", [tensorrt, cuda, cpu])] == [cuda, cpu]
    assert providers("auto", [cpu]) == [(cpu, {})]
    assert providers("cuda:1", [cuda, cpu]) == [(cuda, {"device_id": 1})]
    assert providers("tensorrt", [tensorrt, cpu]) == [(tensorrt, {})]
    for device, mend in (("cuda", "onnxruntime-gpu"), ("directml", "directml"), ("x", "take auto")):
        with pytest.raises(BackendError, match=mend):
            providers(device, [cpu])
    with pytest.raises(BackendError, match="cuda:0"):
        providers("cuda:zero", [cuda, cpu])


def test_torch_and_numpy_agree_on_the_base(make_stirred):
    network = make_stirred("realtime").collapse()
    with torch.no_grad():
        network.upsampler.last.weight.zero_()
        network.upsampler.last.bias.zero_()
    x = np.random.default_rng(0).random((1, 3, 30, 20), dtype=np.float32)
    ours = TorchBackend(network, device="cpu").run(x)
    np.testing.assert_allclose(ours, ClassicalBackend(2, 0.0).run(x), atol=1e-5)


def test_the_engine_is_told_to_report_nothing_before_it_loads(tmp_path):
    # Telemetry of ONNX Runtime leaves a session file where temporary files go.
    code = "import paragonsr2; paragonsr2.Upscaler('realtime', 2)"
    known = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment = known | {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
