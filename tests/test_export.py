"""The exported file is the network it came from, and says so itself."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from paragonsr2.errors import ExportError
from paragonsr2.export.onnx import export_onnx
from paragonsr2.export.parity import ODD_SIZES, check_parity
from paragonsr2.measure.cost import network_cost
from paragonsr2.upscale.backends import OnnxBackend, TorchBackend


@pytest.mark.parametrize(
    ("variant", "scale"), [("realtime", 2), ("realtime", 3), ("realtime", 8), ("stream", 4)]
)
def test_exported_equals_pytorch(make_stirred, tmp_path, variant, scale):
    network = make_stirred(variant, scale)
    exported = export_onnx(network, variant, tmp_path / "x.onnx", training={"steps": 3})
    assert len(exported.parity) == len(ODD_SIZES) == 5
    assert max(parity.max_error for parity in exported.parity) <= 1e-4
    onnx.checker.check_model(str(tmp_path / "x.onnx"), full_check=True)
    backend = OnnxBackend(tmp_path / "x.onnx")
    twin = TorchBackend(network.collapse(), device="cpu")
    for key in ("scale", "halo", "multiple_of", "bytes_per_pixel"):
        assert getattr(backend, key) == getattr(twin, key)
    about = backend.session.get_modelmeta().custom_metadata_map
    assert about["arch"] == f"paragonsr2_{variant}"
    assert json.loads(about["training"]) == {"steps": 3}
    cost = network_cost(network)
    assert float(about["kmacs_per_pixel"]) == pytest.approx(cost.kmacs_per_pixel, abs=0.01)
    assert int(about["parameters"]) == cost.parameters


@pytest.mark.parametrize(("variant", "scale"), [("photo", 2), ("photo", 4), ("pro", 3)])
def test_attention_exports_for_any_size(make_small, tmp_path, variant, scale):
    """Two blocks, one of them shifted, hold everything that the whole depth holds."""
    network = make_small(variant, scale)
    export_onnx(network, variant, tmp_path / "x.onnx")
    model = onnx.load(tmp_path / "x.onnx")
    kinds = {node.op_type for node in model.graph.node}
    assert {"MatMul", "Softmax"} <= kinds
    assert {node.domain for node in model.graph.node} == {""}


def test_the_file_is_one_dynamic_self_contained_graph(make_stirred, tmp_path):
    export_onnx(make_stirred("realtime", 2), "realtime", tmp_path / "x.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["x.onnx"]
    model = onnx.load(tmp_path / "x.onnx", load_external_data=False)
    assert [entry.version for entry in model.opset_import] == [18]
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["output"]
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 3, "height", "width"]
    assert not any(i.data_location == onnx.TensorProto.EXTERNAL for i in model.graph.initializer)
    content = (tmp_path / "x.onnx").read_bytes()
    assert b".py" not in content
    assert {node.op_type for node in model.graph.node} <= {
        "Add", "Concat", "Conv", "DepthToSpace", "LeakyRelu", "Pad",
    }  # fmt: skip


@pytest.mark.parametrize(("variant", "scale"), [("realtime", 2), ("photo", 4), ("pro", 2)])
def test_output_size_is_inferable(make_small, tmp_path, variant, scale):
    path = tmp_path / "x.onnx"
    export_onnx(make_small(variant, scale), variant, path)
    for side in (16, 64, 256, 512):
        model = onnx.load(path)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for dim, value in zip(dims, (1, 3, side, side), strict=True):
            dim.Clear()
            dim.dim_value = value
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        shape = [d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim]
        assert shape == [1, 3, side * scale, side * scale]


def test_a_wrong_model_does_not_pass(make_stirred, tmp_path):
    network = make_stirred("realtime", 2)
    export_onnx(network, "realtime", tmp_path / "x.onnx")
    with torch.no_grad():
        network.conv_in.bias[0] += 0.5
    with pytest.raises(ExportError, match="differs from PyTorch"):
        check_parity((tmp_path / "x.onnx").read_bytes(), network)
    with pytest.raises(ExportError, match="refuses"):
        check_parity(b"nonsense", network)


def test_a_failed_export_leaves_nothing(make_stirred, tmp_path, monkeypatch):
    monkeypatch.setattr("paragonsr2.export.parity.TOLERANCE", -1.0)
    with pytest.raises(ExportError):
        export_onnx(make_stirred("realtime", 2), "realtime", tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_cannot_reach_for_files_beside_it(make_stirred, tmp_path, monkeypatch):
    export_onnx(make_stirred("realtime", 2), "realtime", tmp_path / "x.onnx")
    model = onnx.load(tmp_path / "x.onnx")
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(100_000))
    folder = tmp_path / "models"
    folder.mkdir()
    for location in ("../secret.bin", str(secret)):
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        del weight.external_data[:]
        entry = weight.external_data.add()
        entry.key, entry.value = "location", location
        (folder / "evil.onnx").write_bytes(model.SerializeToString())
        monkeypatch.chdir(folder)
        with pytest.raises(Exception, match=r"evil\.onnx"):
            OnnxBackend(folder / "evil.onnx")


def test_a_foreign_model_tells_its_scale_by_running(make_stirred, tmp_path):
    export_onnx(make_stirred("realtime", 4), "realtime", tmp_path / "x.onnx")
    model = onnx.load(tmp_path / "x.onnx")
    del model.metadata_props[:]
    backend = OnnxBackend(model.SerializeToString())
    assert backend.scale == 4
    assert backend.run(np.zeros((1, 3, 8, 9), np.float32)).shape == (1, 3, 32, 36)
