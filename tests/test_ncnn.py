"""What ncnn computes is what ONNX Runtime computes, in the form that its clients need."""

from __future__ import annotations

import re

import numpy as np
import onnxruntime
import pytest

from conftest import photo_like
from paragonsr2.errors import MissingExtraError, OutputError
from paragonsr2.weights.catalogue import bundled_path, find
from paragonsr2.weights.store import load_checkpoint

ncnn = pytest.importorskip("ncnn", reason="ncnn is not installed")
pytest.importorskip("pnnx", reason="PNNX is not installed")


@pytest.fixture(scope="module", params=[("realtime", 2), ("realtime", 4), ("stream", 2)])
def converted(request, tmp_path_factory):
    """Variant, scale, and the paths of both files."""
    from paragonsr2.export.ncnn import build_ncnn

    variant, scale = request.param
    network = load_checkpoint(bundled_path(find(variant, scale), "safetensors")).network
    folder = tmp_path_factory.mktemp("ncnn")
    return variant, scale, *build_ncnn(network).write(folder, f"paragonsr2-{variant}-x{scale}")


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (45, 62)])
def test_ncnn_computes_the_network(converted, size):
    variant, scale, param, weights = converted
    net = ncnn.Net()
    net.load_param(str(param))
    net.load_model(str(weights))
    height, width = size
    x = photo_like(max(height, 8), max(width, 8))[:height, :width].transpose(2, 0, 1) / 255
    x = np.ascontiguousarray(x, np.float32)
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(x).clone())
    code, found = extractor.extract("output")
    assert code == 0
    session = onnxruntime.InferenceSession(str(bundled_path(find(variant, scale), "onnx")))
    wanted = session.run(None, {"input": x[None]})[0][0].clip(0, None)
    assert np.array(found).shape == wanted.shape
    assert np.abs(np.array(found) - wanted).max() < 0.5 / 255


def test_clients_find_what_they_need(converted):
    variant, _, param, weights = converted
    text = param.read_text(encoding="utf-8")
    layers = re.findall(r"^([A-Z]\w+) ", text, flags=re.MULTILINE)
    assert layers[0] == "Input"
    assert layers[-1] == "ReLU"
    if variant == "realtime":
        assert "ConvolutionDepthWise" not in layers
    # The tag of half-precision weights stands before the first of them.
    assert weights.read_bytes()[:4] == (0x01306B47).to_bytes(4, "little")


def test_without_pnnx_it_says_what_to_install(monkeypatch):
    from paragonsr2.export.ncnn import build_ncnn
    from paragonsr2.network.generator import build

    monkeypatch.setitem(__import__("sys").modules, "pnnx", None)
    with pytest.raises(MissingExtraError, match=r"paragonsr2\[ncnn\]"):
        build_ncnn(build("realtime", 2))


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    from paragonsr2.export.ncnn import NcnnModel

    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="cannot write"):
        NcnnModel("", b"").write(tmp_path / "file" / "inside", "x2")
