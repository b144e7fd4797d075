"""Networks trained for INT8: what training computes is what engines compute."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from conftest import network_of, photo_like
from paragonsr2.errors import BackendError, ExportError
from paragonsr2.export.graph_writing import build_onnx
from paragonsr2.export.parity import check_parity, odd_inputs
from paragonsr2.network.int8 import LEVELS, Int8Conv, calibrate, int8_convs, to_int8
from paragonsr2.training.config import NetworkConfig
from paragonsr2.upscale.backends import OnnxBackend
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.catalogue import bundled_bytes, entries, find
from paragonsr2.weights.store import load_checkpoint, save_checkpoint

BUNDLED = [entry for entry in entries() if "onnx_int8" in entry.files]
INT8_MODELS = pytest.mark.parametrize("entry", BUNDLED, ids=lambda entry: entry.name)


def as_input(pixels):
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def calibrated(variant):
    network = to_int8(network_of(variant, 2))
    calibrate(network, as_input(photo_like(48, 64)))
    return network.eval()


@pytest.fixture(params=["realtime", "stream", "photo"])
def rounded(request):
    """Variant and a calibrated network."""
    return request.param, calibrated(request.param)


@pytest.fixture(scope="module", params=["realtime", "stream"])
def exported(request):
    """A calibrated network and its INT8 graph; attention takes long to trace."""
    network = calibrated(request.param)
    return network, build_onnx(network, request.param, precision="int8")


def test_a_convolution_multiplies_whole_numbers():
    torch.manual_seed(0)
    conv = Int8Conv(nn.Conv2d(3, 5, 3, padding=1))
    x = torch.randn(1, 3, 9, 8) * 0.4
    with torch.no_grad():
        step, steps = conv.input_step, conv.weight_steps
        whole = (x / step).round().clamp(-LEVELS, LEVELS)
        weights = (conv.weight / steps[:, None, None, None]).round()
        assert weights.abs().amax(dim=(1, 2, 3)).eq(LEVELS).all()
        bias = (conv.bias / (step * steps)).round()
        sums = nn.functional.conv2d(whole, weights, bias, padding=1)
        expected = sums * (step * steps)[:, None, None]
        torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=1e-5)


def test_gradients_pass_the_rounding_and_reach_the_step():
    conv = Int8Conv(nn.Conv2d(3, 5, 3, padding=1))
    x = (torch.randn(1, 3, 9, 8) * 0.3).requires_grad_()
    conv(x).square().sum().backward()
    for tensor in (x, conv.weight, conv.bias, conv.input_log_step):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_calibration_makes_room_for_what_it_saw(rounded):
    _, network = rounded
    largest = {}

    def watch(name):
        return lambda _, given: largest.__setitem__(name, given[0].abs().max())

    for name, conv in int8_convs(network):
        conv.register_forward_pre_hook(watch(name))
    with torch.no_grad():
        network(as_input(photo_like(48, 64)))
    for name, conv in int8_convs(network):
        # What comes before rounds now, so that inputs differ a little from those it saw.
        assert largest[name] < 1.2 * LEVELS * float(conv.input_step.detach())


def test_only_the_body_rounds(rounded):
    _, network = rounded
    names = [name for name, _ in int8_convs(network)]
    assert names
    assert all(name.startswith("groups.") for name in names)


def test_a_checkpoint_brings_the_steps_back(rounded, tmp_path):
    variant, network = rounded
    if variant == "photo":
        pytest.skip("a shallow Photo is no Photo that a checkpoint could describe")
    save_checkpoint(tmp_path / "int8.safetensors", network, variant)
    checkpoint = load_checkpoint(tmp_path / "int8.safetensors")
    assert checkpoint.description.int8
    x = as_input(photo_like(20, 30))
    with torch.no_grad():
        torch.testing.assert_close(checkpoint.network(x), network(x), atol=0, rtol=0)


def test_the_exported_graph_computes_what_training_computed(exported):
    network, model = exported
    inputs = [("photo", as_input(photo_like(45, 62)).numpy()), *odd_inputs()]
    check_parity(model, network, inputs)
    assert OnnxBackend(model, device="cpu", trusted=True).name == "onnxruntime CPU int8"
    graph = onnx.load_from_string(model).graph
    stored = {one.name: one.data_type for one in graph.initializer}
    kinds = {stored[f"{name}.weight"] for name, _ in int8_convs(network)}
    assert kinds == {onnx.TensorProto.INT8}


def test_openvino_computes_it_too(exported):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    from paragonsr2.upscale.openvino_backend import OpenVinoBackend

    network, model = exported
    x = as_input(photo_like(45, 62))
    made = OpenVinoBackend(model, device="cpu", precision="fp32", trusted=True).run(x.numpy())
    with torch.no_grad():
        error = float((torch.from_numpy(made) - network(x)).square().mean())
    assert -10 * np.log10(error) > 45


def test_each_network_exports_as_what_it_was_trained_for(rounded):
    variant, network = rounded
    with pytest.raises(ExportError, match="INT8 only"):
        build_onnx(network, variant)
    with pytest.raises(ExportError, match=r"network\.int8"):
        build_onnx(network_of(variant, 2), variant, precision="int8")


def test_int8_is_a_last_stage():
    with pytest.raises(ValueError, match="set pretrain"):
        NetworkConfig.model_validate({"variant": "stream", "scale": 2, "int8": True})


@INT8_MODELS
def test_bundled_int8_models_open_in_every_engine(entry):
    assert (
        Upscaler(entry.model, entry.scale, precision="int8", backend="onnxruntime").backend.name
        == "onnxruntime CPU int8"
    )
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    up = Upscaler(entry.model, entry.scale, precision="int8", device="cpu")
    assert up.backend.name == "openvino CPU int8"
    assert up.backend.in_fp32().name == "openvino CPU fp32"
    assert up.divided(2).backend.name == up.backend.name


@INT8_MODELS
def test_bundled_int8_models_lose_little(entry):
    x = photo_like(150, 170)
    wide = Upscaler(entry.model, entry.scale, precision="fp32")(x).astype(float)
    narrow = Upscaler(entry.model, entry.scale, precision="int8", backend="onnxruntime")(x)
    assert 10 * np.log10(255**2 / np.mean((wide - narrow) ** 2)) > 40


@INT8_MODELS
def test_tiles_in_int8_are_tiles_of_the_whole(entry):
    # A sum that lies between two steps may fall to either side, in one place or another.
    x = photo_like(150, 170)
    whole = Upscaler(entry.model, 2, precision="int8", backend="onnxruntime", tile="off")(x)
    tiles = Upscaler(entry.model, 2, precision="int8", backend="onnxruntime", tile=64)(x)
    assert np.abs(whole.astype(int) - tiles.astype(int)).max() <= 1


def test_a_model_without_int8_says_which_have_it():
    with pytest.raises(BackendError, match="no INT8 form of photo x2 is bundled; there is one of"):
        Upscaler("photo", 2, precision="int8", backend="onnxruntime")
    with pytest.raises(BackendError, match="PyTorch has no INT8"):
        Upscaler("stream", 2, precision="int8", backend="torch")


def test_a_file_is_what_it_is(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(bundled_bytes(find("realtime", 2), "onnx"))
    with pytest.raises(BackendError, match="drop --precision int8"):
        Upscaler(path, precision="int8", backend="onnxruntime")


def test_other_formats_take_the_network_before(rounded):
    pytest.importorskip("pnnx", reason="PNNX is not installed")
    from paragonsr2.export.ncnn import build_ncnn

    _, network = rounded
    with pytest.raises(ExportError, match="the one it came from"):
        build_ncnn(network)
