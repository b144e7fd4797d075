"""Tiling, channels and depth."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import paragonsr2
from conftest import ROOT, photo_like
from paragonsr2.errors import (
    BackendError,
    ImageError,
    InputError,
    MissingExtraError,
    OutputError,
    TileError,
    UsageError,
)
from paragonsr2.upscale.backends import (
    ClassicalBackend,
    OverflowGuard,
    TorchBackend,
    providers,
)
from paragonsr2.upscale.tiling import auto_tile, spans
from paragonsr2.upscale.upscaler import Upscaler


@given(
    length=st.integers(1, 600),
    tile=st.integers(16, 128),
    halo=st.integers(0, 70),
    multiple=st.sampled_from([1, 8, 16]),
)
@settings(deadline=None)
def test_tiles_cover_every_pixel_once(length, tile, halo, multiple):
    count = np.zeros(length, dtype=int)
    for span in spans(length, tile, halo, multiple):
        assert 0 <= span.read_start <= span.start < span.stop <= span.read_stop <= length
        assert span.read_start % multiple == 0
        assert span.start - span.read_start >= min(halo, span.start)
        assert span.read_stop - span.stop >= min(halo, length - span.stop)
        count[span.start : span.stop] += 1
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
def test_tiled_equals_whole_for_random_sizes(make_stirred, variant, scale):
    backend = TorchBackend(make_stirred(variant, scale).collapse(), device="cpu")
    rng = np.random.default_rng(scale)
    sizes = [(1, 1), (1, 300), (300, 1)]
    sizes += [tuple(rng.integers(1, 301, 2)) for _ in range(9)]
    whole = Upscaler.around(backend, tile="off")
    for height, width in sizes:
        x = rng.random((height, width, 3), dtype=np.float32)
        tiled = Upscaler.around(backend, tile=int(rng.integers(16, 200)))
        np.testing.assert_allclose(tiled(x), whole(x), atol=1e-5)


@pytest.mark.parametrize("scale", [2, 4])
def test_tiles_of_the_trained_photo_differ_by_less_than_half_a_step(scale):
    """Its halo is smaller than its reach; ``tools/measure_halo.py`` found it on more pictures."""
    with Image.open(ROOT / "examples" / "houses.png") as image:
        lr = np.asarray(image.convert("RGB"), np.float32)[100:292, 100:292] / 255
    whole, tiled = (Upscaler("photo", scale, tile=tile)(lr) for tile in ("off", 64))
    assert np.abs(tiled - whole).max() < 0.5 / 255


def test_photo_is_exact_when_the_halo_covers_its_reach(make_small):
    network = make_small("photo", blocks=2).collapse()
    network.tile_halo = network.reach
    backend = TorchBackend(network, device="cpu")
    for height, width, tile in ((150, 131, 16), (70, 201, 48), (33, 40, 32)):
        x = np.random.default_rng(1).random((height, width, 3), dtype=np.float32)
        tiled = Upscaler.around(backend, tile=tile)(x)
        np.testing.assert_allclose(tiled, Upscaler.around(backend, tile="off")(x), atol=1e-5)


@pytest.mark.parametrize("variant", ["realtime", "photo"])
def test_an_ensemble_treats_mirror_images_alike_and_has_the_same_tiles(make_small, variant):
    network = make_small(variant, blocks=2).collapse()
    if network.reach is not None:
        network.tile_halo = network.reach
    backend = TorchBackend(network, device="cpu")
    whole = Upscaler.around(backend, tile="off", ensemble=True)
    side = 2 * backend.multiple_of if backend.multiple_of > 1 else 37
    x = np.random.default_rng(1).random((side, side, 3), dtype=np.float32)
    large = whole(x)
    assert not np.allclose(large, Upscaler.around(backend, tile="off")(x), atol=1e-5)
    for turn in (np.flipud, np.fliplr, np.rot90):
        np.testing.assert_allclose(whole(np.ascontiguousarray(turn(x))), turn(large), atol=1e-5)
    y = np.random.default_rng(2).random((90, 71, 3), dtype=np.float32)
    tiled = Upscaler.around(backend, tile=32, ensemble=True)
    np.testing.assert_allclose(tiled(y), whole(y), atol=1e-5)


@pytest.mark.parametrize("alpha", [None, 0.0, 1.0])
def test_classical_tiles_are_exact(alpha):
    backend = ClassicalBackend(2, alpha)
    x = photo_like(90, 61).astype(np.float32) / 255
    tiled = Upscaler.around(backend, tile=17)(x)
    np.testing.assert_allclose(tiled, Upscaler.around(backend, tile="off")(x), atol=1e-5)


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


class Overflowing(ClassicalBackend):
    """Gives NaN, and has ``twin`` for float32."""

    def __init__(self, twin):
        super().__init__(2, 0.0)
        self.twin, self.opened = twin, 0

    def run(self, x):
        return np.full_like(super().run(x), np.nan)

    def in_fp32(self):
        self.opened += 1
        return self.twin


def test_what_overflows_is_computed_in_float32_or_an_error():
    x = np.full((1, 3, 4, 4), 0.5, np.float32)
    backend = Overflowing(ClassicalBackend(2, 0.0))
    np.testing.assert_allclose(OverflowGuard(backend).run(x), 0.5, atol=1e-6)
    with pytest.raises(BackendError, match="in float32 too"):
        OverflowGuard(Overflowing(Overflowing(None))).run(x)
    with pytest.raises(BackendError, match="NaN or Inf; the weights"):
        OverflowGuard(Overflowing(None)).run(x)


def test_the_float32_twin_is_opened_once_for_all_tiles_and_threads():
    backend = Overflowing(ClassicalBackend(2, 0.0))
    up = Upscaler.around(backend, tile=16)
    pixels = photo_like(64, 64)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(up, [pixels] * 4))
    expected = Upscaler("magic", 2)(pixels)
    for result in results:
        np.testing.assert_array_equal(result, expected)
    assert backend.opened == 1


@pytest.mark.parametrize("options", [{}, {"backend": "torch"}, {"backend": "openvino"}], ids=str)
def test_threads_may_share_an_upscaler(options):
    up = opened("realtime", 2, device="cpu", tile=32, **options)
    pictures = [photo_like(40, 56, seed=seed) for seed in range(6)]
    expected = [up(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        for alone, shared in zip(expected, pool.map(up, pictures), strict=True):
            np.testing.assert_array_equal(alone, shared)


def opened(*arguments, **options):
    try:
        return Upscaler(*arguments, **options)
    except MissingExtraError as error:
        pytest.skip(str(error))


def test_the_automatic_tile_goes_by_available_memory_not_by_what_is_free(monkeypatch):
    def memory(available, free):
        told = SimpleNamespace(available=available, free=free)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: told)
        return Upscaler("stream", 2).tile

    warm_cache, plenty = memory(8 << 30, 50 << 20), memory(8 << 30, 8 << 30)
    assert warm_cache == plenty
    assert memory(200 << 20, 50 << 20) < plenty


def test_an_engine_on_a_gpu_goes_by_the_memory_of_the_gpu():
    class OnGpu(ClassicalBackend):
        def __init__(self, free):
            super().__init__(2, 0.0)
            self.free = free

        def free_memory(self):
            return self.free

    assert Upscaler.around(OnGpu(1 << 20)).tile < Upscaler.around(OnGpu(1 << 40)).tile


# What an upscaler takes and refuses


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "x"},
        {"precision": "fp8"},
        {"tile": "abc"},
        {"tile": 8},
        {"tile": None},
        {"model": "img.png"},
        {"model": "magic", "backend": "torch"},
        {"model": "bicubic", "device": "cuda"},
        {"model": "magic:0.5", "precision": "fp16"},
        {"model": "bicubic:1"},
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_refused_in_one_line(options):
    with pytest.raises(UsageError) as caught:
        Upscaler(**options)
    assert "\n" not in str(caught.value)
    assert str(next(reversed(options.values()))) in str(caught.value)


def test_a_baseline_takes_what_it_computes_with_anyway():
    assert Upscaler("magic", device="cpu", precision="fp32").scale == 2


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_a_pil_image_comes_back_as_one(mode):
    up = Upscaler("magic", 2)
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}[mode]
    pixels = photo_like(20, 31, channels)
    if mode == "I;16":
        pixels = pixels.astype(np.uint16) * 257
    pixels = pixels[:, :, 0] if channels == 1 else pixels
    image = Image.fromarray(pixels)
    image.info["icc_profile"] = b"a profile"
    large = up(image)
    assert (large.mode, large.size) == (mode, (62, 40))
    assert large.info["icc_profile"] == b"a profile"
    np.testing.assert_array_equal(np.array(large), up(pixels))


def test_palettes_become_colours_and_other_modes_name_the_conversion():
    up = Upscaler("magic", 2)
    picture = Image.fromarray(photo_like(8, 8))
    assert up(picture.convert("P")).mode == "RGB"
    assert up(picture.convert("1")).mode == "L"
    with pytest.raises(ImageError, match=r"convert\('RGB'\)"):
        up(picture.convert("CMYK"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.uint8])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_a_tensor_comes_back_as_one(dtype, lead):
    up = Upscaler("magic", 2)
    pictures = np.stack([photo_like(12, 17, seed=seed) for seed in range(2)])
    batch = torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())
    batch = batch if dtype == torch.uint8 else batch.to(dtype) / 255
    large = up(batch if lead else batch[0])
    assert large.dtype == dtype
    assert large.shape == (*lead, 3, 24, 34)
    first = (large[0] if lead else large).permute(1, 2, 0)
    if dtype == torch.uint8:
        np.testing.assert_array_equal(first.numpy(), up(pictures[0]))
    else:
        expected = up(pictures[0].astype(np.float32) / 255)
        np.testing.assert_allclose(first.float().numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("kind", [Path, str])
def test_a_path_comes_back_as_the_path_of_the_result(tmp_path, kind):
    source = tmp_path / "a.png"
    Image.fromarray(photo_like(20, 30)).save(source)
    up = Upscaler("magic", 2)
    large = up(kind(source))
    assert large == kind(tmp_path / "a_x2.png")
    with Image.open(large) as image:
        np.testing.assert_array_equal(np.array(image), up(photo_like(20, 30)))
    before = Path(large).read_bytes()
    with pytest.raises(OutputError, match="exists"):
        Upscaler("bicubic", 2)(source)
    assert Path(large).read_bytes() == before
    with pytest.raises(ImageError, match="no file"):
        up(tmp_path / "none.png")
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(InputError, match=r"bad\.png|image"):
        up(tmp_path / "bad.png")


@pytest.mark.parametrize(
    "thing", [[1, 2], None, 3.5, torch.zeros(4, 4), torch.zeros(9, 4, 4), torch.zeros(3, 0, 4)]
)
def test_what_is_no_image_is_refused_in_one_line(thing):
    with pytest.raises(ImageError) as caught:
        Upscaler("magic", 2)(thing)
    assert "\n" not in str(caught.value)


def test_an_upscaler_says_what_it_is_and_can_be_found():
    said = repr(Upscaler("realtime", 2, device="cpu"))
    for part in ("realtime", "x2", "onnxruntime", "CPU"):
        assert part in said
    assert "Upscaler" in dir(paragonsr2)


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
    assert [name for name, _ in providers("auto", [cuda, cpu])] == [cuda, cpu]
    assert providers("auto", [cpu]) == [(cpu, {})]
    assert providers("cuda:1", [cuda, cpu]) == [(cuda, {"device_id": 1})]
    for device, mend in (
        ("cuda", "onnxruntime-gpu"), ("directml", "directml"), ("x", "choose auto"),
        ("openvino", "--backend openvino"), ("tensorrt", "--backend tensorrt"),
    ):  # fmt: skip
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
