"""The OpenVINO backend runs the real library."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import photo_like
from paragonsr2.errors import BackendError, OptionError
from paragonsr2.upscale.backends import OnnxBackend
from paragonsr2.upscale.opening import PRECISION_VARIABLE
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.catalogue import bundled_bytes, find

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")


def test_openvino_equals_onnx_runtime_on_bundled_weights():
    x = photo_like(50, 41).astype(np.float32) / 255
    up = Upscaler("realtime", 2, backend="openvino", device="cpu", precision="fp32")
    assert up.backend.name == "openvino CPU fp32"
    np.testing.assert_allclose(up(x), Upscaler("realtime", 2)(x), atol=1e-4)


@pytest.mark.parametrize("variant", ["stream", "photo"])
def test_openvino_runs_every_kind_of_block_at_odd_sizes(variant):
    from paragonsr2.upscale.openvino_backend import OpenVinoBackend

    model = bundled_bytes(find(variant, 2), "onnx")
    ours = OpenVinoBackend(model, device="cpu", precision="fp32")
    theirs = OnnxBackend(model, device="cpu")
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 5), (33, 17)):
        x = rng.random((1, 3, height, width), dtype=np.float32)
        np.testing.assert_allclose(ours.run(x), theirs.run(x), atol=1e-4)


def test_results_are_not_overwritten_by_the_next_call():
    backend = Upscaler("realtime", 2, backend="openvino", device="cpu").backend
    x = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)
    first = backend.run(x)
    kept = first.copy()
    backend.run(1 - x)
    np.testing.assert_array_equal(first, kept)


def test_bfloat16_is_used_where_the_processor_has_it(monkeypatch):
    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert Upscaler("realtime", 2).backend.name == "onnxruntime CPU fp32"  # by the variable
    monkeypatch.delenv(PRECISION_VARIABLE)
    auto = Upscaler("realtime", 2, backend="openvino", device="cpu")
    assert auto.backend.name == f"openvino CPU {'bf16' if able else 'fp32'}"
    if not able:
        assert Upscaler("realtime", 2).backend.name == "onnxruntime CPU fp32"
        with pytest.raises(BackendError, match="bfloat16"):
            Upscaler("realtime", 2, precision="bf16")
        return
    for chosen in ({}, {"device": "cpu"}):
        assert Upscaler("realtime", 2, **chosen).backend.name == "openvino CPU bf16"
    for chosen in ({"precision": "fp32"}, {"backend": "onnxruntime"}):
        assert Upscaler("realtime", 2, **chosen).backend.name == "onnxruntime CPU fp32"
    narrow = Upscaler("realtime", 2, precision="bf16")
    assert narrow.backend.name == "openvino CPU bf16"
    x = photo_like(50, 41).astype(np.float32) / 255
    error = np.mean((narrow(x) - Upscaler("realtime", 2, precision="fp32")(x)) ** 2)
    assert 10 * np.log10(1 / error) > 45
    np.testing.assert_array_equal(auto(x), narrow(x))
    black = np.zeros((1, 3, 9, 9), np.float32)
    np.testing.assert_allclose(narrow.backend.run(black), 0.0, atol=0.01)
    assert narrow.backend.in_fp32().name == "openvino CPU fp32"


@pytest.mark.parametrize("model", ["realtime", "stream", "photo"])
def test_tiles_in_bfloat16_equal_the_whole(model):
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no instructions for bfloat16")
    x = photo_like(150, 170)
    whole = Upscaler(model, 2, precision="bf16", tile="off")(x).astype(int)
    tiles = Upscaler(model, 2, precision="bf16", tile=64)(x).astype(int)
    assert np.abs(whole - tiles).max() <= (1 if model == "photo" else 0)


def test_a_share_of_the_cores_gives_the_same_result():
    up = Upscaler("realtime", 2, backend="openvino", device="cpu")
    half = up.divided(2)
    x = photo_like(50, 41)
    assert half.backend.name == up.backend.name
    np.testing.assert_array_equal(half(x), up(x))


def test_the_usual_precision_is_one_that_exists(monkeypatch):
    monkeypatch.setenv(PRECISION_VARIABLE, "half")
    with pytest.raises(OptionError, match="PARAGONSR2_PRECISION=half: choose auto, fp32"):
        Upscaler("realtime", 2)


def test_a_missing_device_is_said():
    with pytest.raises(BackendError, match="choose from: cpu"):
        Upscaler("realtime", 2, backend="openvino", device="npu.7")
