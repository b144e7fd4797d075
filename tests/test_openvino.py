"""The OpenVINO backend runs the real library."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import exported, photo_like
from paragonsr2.errors import BackendError
from paragonsr2.upscale.backends import OnnxBackend
from paragonsr2.upscale.upscaler import Upscaler

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")


def test_openvino_equals_onnx_runtime_on_bundled_weights():
    x = photo_like(50, 41).astype(np.float32) / 255
    up = Upscaler("realtime", 2, backend="openvino", device="cpu", precision="fp32")
    assert up.backend.name == "openvino CPU fp32"
    np.testing.assert_allclose(up(x), Upscaler("realtime", 2)(x), atol=1e-4)


@pytest.mark.parametrize("variant", ["stream", "photo"])
def test_openvino_runs_every_kind_of_block_at_odd_sizes(variant):
    from paragonsr2.upscale.openvino_backend import OpenVinoBackend

    model = exported(variant, 2)
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


def test_bfloat16_is_used_where_the_processor_has_it():
    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    auto = Upscaler("realtime", 2, backend="openvino", device="cpu")
    assert auto.backend.name == f"openvino CPU {'bf16' if able else 'fp32'}"
    if not able:
        with pytest.raises(BackendError, match="bfloat16"):
            Upscaler("realtime", 2, precision="bf16")
        return
    narrow = Upscaler("realtime", 2, precision="bf16")
    assert narrow.backend.name == "openvino CPU bf16"
    x = photo_like(50, 41).astype(np.float32) / 255
    error = np.mean((narrow(x) - Upscaler("realtime", 2)(x)) ** 2)
    assert 10 * np.log10(1 / error) > 45
    np.testing.assert_array_equal(auto(x), narrow(x))
    black = np.zeros((1, 3, 9, 9), np.float32)
    np.testing.assert_allclose(narrow.backend.run(black), 0.0, atol=0.01)
    assert narrow.backend.in_fp32().name == "openvino CPU fp32"


def test_a_missing_device_is_said():
    with pytest.raises(BackendError, match="choose from: cpu"):
        Upscaler("realtime", 2, backend="openvino", device="npu.7")
