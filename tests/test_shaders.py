"""Shaders compute what the ONNX file computes, in NumPy, in a browser and in libplacebo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from conftest import photo_like
from paragonsr2.errors import ExportError, WeightsError
from paragonsr2.shaders.glsl import write_glsl
from paragonsr2.shaders.reading import read_program
from paragonsr2.shaders.wgsl import write_wgsl
from paragonsr2.weights.catalogue import bundled_bytes, bundled_path, find

SIZES = [(1, 1), (2, 19), (23, 7), (37, 41)]
LAVAPIPE = Path("/usr/share/vulkan/icd.d/lvp_icd.x86_64.json")


def program_of(scale, model="realtime"):
    return read_program(bundled_bytes(find(model, scale), "onnx"), f"{model}.onnx")


def by_onnxruntime(scale, x):
    path = bundled_path(find("realtime", scale), "onnx")
    return onnxruntime.InferenceSession(str(path)).run(None, {"input": x})[0]


def picture(height, width):
    pixels = photo_like(max(height, 8), max(width, 8))[:height, :width]
    return (pixels.transpose(2, 0, 1)[None] / 255).astype(np.float32)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_a_program_is_the_network(scale, size):
    x = picture(*size)
    assert np.abs(program_of(scale).run(x) - by_onnxruntime(scale, x)).max() < 1e-5


def test_pixels_beyond_the_reach_change_nothing():
    program = program_of(2)
    x = picture(9, 2 * program.reach + 20)
    changed = x.copy()
    changed[..., -1] = 0.5
    difference = np.abs(program.run(changed) - program.run(x)).max(axis=(0, 1, 2))
    assert difference[: 2 * (x.shape[3] - 1 - program.reach)].max() == 0
    assert difference[-1] > 0


def test_other_networks_are_refused():
    with pytest.raises(ExportError, match="cannot become a shader"):
        program_of(2, "stream")
    with pytest.raises(WeightsError, match=r"x\.onnx is not an ONNX model"):
        read_program(b"nothing", "x.onnx")


@pytest.fixture(scope="module")
def webgpu():
    """A page of a headless Chromium that computes WebGPU on the CPU."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader",
                 "--enable-features=Vulkan", "--use-vulkan=swiftshader"]  # fmt: skip
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        page.route("**/*", lambda route: route.fulfill(body="<p>", content_type="text/html"))
        page.goto("https://localhost/")  # WebGPU exists on secure pages only
        page.add_script_tag(path=str(Path(__file__).parent / "webgpu.js"))
        if not page.evaluate("async () => !!(await navigator.gpu?.requestAdapter())"):
            pytest.skip("this Chromium has no WebGPU adapter")
        yield page
        browser.close()


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_webgpu_kernels_are_the_network(webgpu, scale, size):
    x = picture(*size)
    rgba = np.concatenate([x, np.full_like(x[:, :1], 0.25)], axis=1)[0].transpose(1, 2, 0)
    document = json.loads(write_wgsl(program_of(scale)))
    found = webgpu.evaluate(
        "([document, pixels, width, height]) => enlarge(document, pixels, width, height)",
        [document, rgba.ravel().tolist(), size[1], size[0]],
    )
    y = np.array(found, np.float32).reshape(size[0] * scale, size[1] * scale, 4)
    assert np.abs(y[..., :3].transpose(2, 0, 1)[None] - by_onnxruntime(scale, x)).max() < 1e-5
    assert np.all(y[..., 3] == 0.25)


def libplacebo(source, shader, target, width, height):
    """Play a picture through ffmpeg's libplacebo on a CPU's Vulkan."""
    filters = (
        f"format=rgba,hwupload,libplacebo=w={width}:h={height}:custom_shader_path={shader}:"
        "format=rgba:dithering=-1:upscaler=none:downscaler=none,hwdownload,format=rgba"
    )
    command = ["ffmpeg", "-v", "error", "-init_hw_device", "vulkan=vk:0", "-i", source,
               "-vf", filters, "-frames:v", "1", "-update", "1", target]  # fmt: skip
    return subprocess.run(
        command, env={**os.environ, "VK_ICD_FILENAMES": str(LAVAPIPE)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def player():
    """Skips where ffmpeg has no libplacebo, or there is no Vulkan for a CPU."""
    if shutil.which("ffmpeg") is None or not LAVAPIPE.exists():
        pytest.skip("needs ffmpeg and Mesa's lavapipe (Debian: ffmpeg, mesa-vulkan-drivers)")
    filters = subprocess.run(["ffmpeg", "-filters"], capture_output=True, text=True, check=True)
    if "libplacebo" not in filters.stdout:
        pytest.skip("this ffmpeg is built without libplacebo")


@pytest.mark.parametrize("size", [(37, 61)])
def test_a_player_shows_the_network(player, tmp_path, size):
    height, width = size
    x = picture(height, width)
    pixels = np.rint(x[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    (tmp_path / "x2.glsl").write_text(write_glsl(program_of(2), "test"), encoding="utf-8")
    done = libplacebo(
        tmp_path / "in.png", tmp_path / "x2.glsl", tmp_path / "out.png", 2 * width, 2 * height
    )
    assert done.returncode == 0, done.stderr
    shown = np.asarray(Image.open(tmp_path / "out.png").convert("RGB")).astype(float)
    wanted = by_onnxruntime(2, x)[0].transpose(1, 2, 0).clip(0, 1) * 255
    assert np.sqrt(np.mean((shown - wanted) ** 2)) < 255 * 10 ** (-50 / 20)
