"""Shaders compute what the ONNX file computes, in NumPy, in a browser and in libplacebo."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest

from benchmark.gpu_stand_ins import (
    MissingToolError,
    enlarge_in_browser,
    play,
    require_player,
    webgpu_page,
)
from conftest import photo_like
from paragonsr2.errors import ExportError, WeightsError
from paragonsr2.shaders.glsl import write_glsl
from paragonsr2.shaders.reading import read_program
from paragonsr2.shaders.wgsl import write_wgsl
from paragonsr2.weights.catalogue import bundled_bytes, bundled_path, find

SIZES = [(1, 1), (2, 19), (23, 7), (37, 41)]


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
    try:
        with webgpu_page() as page:
            yield page
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_webgpu_kernels_are_the_network(webgpu, scale, size):
    x = picture(*size)
    rgba = np.concatenate([x, np.full_like(x[:, :1], 0.25)], axis=1)
    y = enlarge_in_browser(webgpu, json.loads(write_wgsl(program_of(scale))), rgba)
    assert np.abs(y[:, :3] - by_onnxruntime(scale, x)).max() < 1e-5
    assert np.all(y[:, 3] == 0.25)


@pytest.fixture(scope="module")
def player():
    """Skips where ffmpeg has no libplacebo, or there is no Vulkan for a CPU."""
    try:
        require_player()
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("size", [(37, 61)])
def test_a_player_shows_the_network(player, size):
    x = picture(*size)
    pixels = np.rint(x[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    shown = play(pixels, write_glsl(program_of(2), "test"), 2).astype(float)
    wanted = by_onnxruntime(2, x)[0].transpose(1, 2, 0).clip(0, 1) * 255
    assert np.sqrt(np.mean((shown - wanted) ** 2)) < 255 * 10 ** (-50 / 20)
