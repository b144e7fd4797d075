"""The exported file is the network it came from, and says so itself."""

from __future__ import annotations

import copy
import json
import runpy
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from conftest import ROOT, exported, network_of, photo_like, stirred
from paragonsr2.errors import ExportError, OutputError, ParagonError
from paragonsr2.export.parity import ODD_SIZES, check_parity, extreme_inputs, odd_inputs
from paragonsr2.export.release import release_onnx
from paragonsr2.images.header import Picture
from paragonsr2.images.writing import write_picture
from paragonsr2.measure.cost import network_cost
from paragonsr2.network.generator import build
from paragonsr2.upscale.backends import OnnxBackend, TorchBackend
from paragonsr2.weights.store import load_checkpoint, save_checkpoint

# Every variant, every opset, attention in all of them; upsampling at once and in stages.
CASES = [
    ("realtime", 2, 18),
    ("realtime", 3, 18),
    ("realtime", 8, 20),
    ("stream", 2, 18),
    ("photo", 2, 18),
    ("photo", 4, 18),
    ("pro", 2, 20),
]
EACH = pytest.mark.parametrize(("variant", "scale", "opset"), CASES)


@EACH
def test_fp32_equals_pytorch_at_odd_sizes(variant, scale, opset):
    model = exported(variant, scale, opset)
    found = check_parity(model, network_of(variant, scale), odd_inputs())
    assert len(found) == len(ODD_SIZES) == 5
    assert max(parity.max_error for parity in found) <= 1e-4
    assert onnx.load_from_string(model).opset_import[0].version == opset


@EACH
def test_fp16_is_strongly_typed_and_close(variant, scale, opset):
    content = exported(variant, scale, opset, "fp16")
    network = network_of(variant, scale)
    found = check_parity(content, network, [*odd_inputs(), *extreme_inputs()])
    assert min(parity.psnr for parity in found) >= 50
    model = onnx.load_from_string(content)
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    ends = [*model.graph.input, *model.graph.output]
    assert {end.type.tensor_type.elem_type for end in ends} == {half}
    convolved = {n.input[1] for n in model.graph.node if n.op_type == "Conv"}
    kinds = {i.data_type for i in model.graph.initializer if i.name in convolved}
    assert kinds == {half}
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    for node in model.graph.node:
        if node.op_type in ("Softmax", "ReduceMean"):
            assert types[node.input[0]] == single
        if node.op_type in ("Conv", "MatMul"):
            assert types.get(node.output[0], half) == half


@EACH
def test_graphs_hold_plain_operators_only(variant, scale, opset):
    model = onnx.load_from_string(exported(variant, scale, opset))
    kinds = {node.op_type for node in model.graph.node}
    assert {node.domain for node in model.graph.node} == {""}
    if variant in ("photo", "pro"):
        assert {"MatMul", "Softmax"} <= kinds
    assert "GlobalAveragePool" not in kinds
    if variant == "pro":
        reduced = [axes_of(model, n) for n in model.graph.node if n.op_type == "ReduceMean"]
        assert [2, 3] in reduced


def axes_of(model, node):
    if len(node.input) == 2:
        (axes,) = (i for i in model.graph.initializer if i.name == node.input[1])
        return sorted(onnx.numpy_helper.to_array(axes).tolist())
    (axes,) = (a for a in node.attribute if a.name == "axes")
    return sorted(axes.ints)


def test_realtime_is_convolutions_and_little_else():
    model = onnx.load_from_string(exported("realtime", 2))
    assert {node.op_type for node in model.graph.node} <= {
        "Add", "Concat", "Conv", "DepthToSpace", "LeakyRelu", "Pad",
    }  # fmt: skip


def test_the_file_is_dynamic_and_self_contained():
    content = exported("realtime", 2)
    model = onnx.load_from_string(content)
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["output"]
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 3, "height", "width"]
    assert not any(i.data_location == onnx.TensorProto.EXTERNAL for i in model.graph.initializer)
    assert b".py" not in content


def test_the_file_says_what_it_is():
    network = network_of("realtime", 2)
    backend = OnnxBackend(exported("realtime", 2))
    twin = TorchBackend(network.collapse(), device="cpu")
    for key in ("scale", "halo", "multiple_of", "bytes_per_pixel"):
        assert getattr(backend, key) == getattr(twin, key)
    about = backend.session.get_modelmeta().custom_metadata_map
    assert about["arch"] == "paragonsr2_realtime"
    assert json.loads(about["training"]) == {"steps": 3}
    cost = network_cost(network)
    assert float(about["kmacs_per_pixel"]) == pytest.approx(cost.kmacs_per_pixel, abs=0.01)
    assert int(about["parameters"]) == cost.parameters


@EACH
def test_output_size_is_inferable(variant, scale, opset):
    for side in (16, 64, 256, 512):
        model = onnx.load_from_string(exported(variant, scale, opset))
        model.graph.output[0].type.tensor_type.ClearField("shape")
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for dim, value in zip(dims, (1, 3, side, side), strict=True):
            dim.Clear()
            dim.dim_value = value
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        shape = [d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim]
        assert shape == [1, 3, side * scale, side * scale]


def test_a_wrong_model_does_not_pass():
    torch.manual_seed(3)
    other = stirred(build("realtime", 2), 0.02)
    with torch.no_grad():
        other.conv_in.bias[0] += 0.5
    for precision in ("fp32", "fp16"):
        with pytest.raises(ExportError, match="differs from PyTorch"):
            check_parity(exported("realtime", 2, 18, precision), other, odd_inputs())
    with pytest.raises(ExportError, match="refuses"):
        check_parity(b"nonsense", other, odd_inputs())


@pytest.fixture
def checkpoint_path(tmp_path):
    path = tmp_path / "r.safetensors"
    save_checkpoint(path, network_of("realtime", 2), "realtime")
    return path


def run_release(*arguments):
    script = [sys.executable, str(ROOT / "convert_onnx_release.py"), *map(str, arguments)]
    return subprocess.run(script, capture_output=True, text=True, check=False)


def test_a_release_is_two_models_and_a_report(checkpoint_path, tmp_path):
    val, out = tmp_path / "val", tmp_path / "out"
    write_picture(val / "a.png", Picture(photo_like(60, 84)))
    write_picture(val / "b.png", Picture(photo_like(41, 50, 1)))
    done = run_release(
        "--checkpoint", checkpoint_path, "--arch", "paragonsr2_realtime", "--scale", 2,
        "--output", out, "--val_dir", val,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = ["paragonsr2_realtime_fp16.onnx", "paragonsr2_realtime_fp32.onnx",
             "paragonsr2_realtime_report.json"]  # fmt: skip
    assert sorted(p.name for p in out.iterdir()) == names
    for name in names[:2]:
        onnx.checker.check_model(str(out / name), full_check=True)
    report = json.loads((out / names[2]).read_text())
    for model in report["models"]:
        assert {"a.png", "b.png"} <= {parity["name"] for parity in model["parity"]}
        assert model["worst"]["psnr"] == min(parity["psnr"] for parity in model["parity"])
    assert "worst" in done.stdout


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run ``convert_onnx_release.py`` in this process; it must fail in one line, leaving nothing.

    Gives the line.
    """

    def run(**flags):
        standard = {"arch": "paragonsr2_realtime", "scale": 2, "output": tmp_path / "out"}
        arguments = [f"--{name}={value}" for name, value in (standard | flags).items()]
        monkeypatch.setattr(sys, "argv", ["convert_onnx_release.py", *arguments])
        before = {path for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(ROOT / "convert_onnx_release.py"), run_name="__main__")
        assert exit_.value.code in (1, 2, 3)
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
        out, line = capsys.readouterr()
        assert not out
        assert len(line.splitlines()) == 1
        return line

    return run


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_weight_that_is_no_number_is_refused(refused, tmp_path, value):
    network = copy.deepcopy(network_of("realtime", 2))
    with torch.no_grad():
        network.groups[1].blocks[0].conv.mix[0, 0, 0, 0] = value
    path = tmp_path / "damaged.safetensors"
    save_checkpoint(path, network, "realtime")
    assert "NaN or Inf" in refused(checkpoint=path)


def test_one_flipped_bit_is_refused(refused, checkpoint_path):
    content = bytearray(checkpoint_path.read_bytes())
    content[-1000] ^= 1
    checkpoint_path.write_bytes(content)
    assert "have changed since it was written" in refused(checkpoint=checkpoint_path)


def test_a_pickle_that_runs_code_is_refused_and_not_run(refused, tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w').close()",))

    path = tmp_path / "evil.pth"
    torch.save({"params": Trap()}, path)
    assert "refused" in refused(checkpoint=path)


@pytest.mark.parametrize(
    "change",
    [
        {"arch": "paragonsr2_photo"},
        {"scale": 4},
        {"output": "file/out"},
        {"opset": 17},
        {"val_dir": "nowhere"},
        {"upsampler_alpha": 0.7},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_wrong_flag_is_refused(refused, checkpoint_path, tmp_path, monkeypatch, change):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    refused(checkpoint=checkpoint_path, **change)


@pytest.fixture
def known_graphs(monkeypatch):
    """A release of ``checkpoint_path`` takes graphs that are made already."""

    def graph(_network, variant, *, precision, opset, training):
        return exported(variant, 2, opset, precision)

    monkeypatch.setattr("paragonsr2.export.release.build_onnx", graph)


@pytest.mark.usefixtures("known_graphs")
@pytest.mark.parametrize("change", [("TOLERANCE", -1.0), ("LEAST", {"FP16": 1000.0})])
def test_a_failed_proof_leaves_nothing(checkpoint_path, tmp_path, monkeypatch, change):
    limit, value = change
    monkeypatch.setattr(f"paragonsr2.export.parity.{limit}", value)
    with pytest.raises(ExportError):
        release_onnx(load_checkpoint(checkpoint_path), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_an_unwritable_folder_fails_before_the_work(checkpoint_path, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        release_onnx(load_checkpoint(checkpoint_path), tmp_path / "file" / "out")


@pytest.mark.usefixtures("known_graphs")
@pytest.mark.parametrize("older", [{}, {"paragonsr2_realtime_fp32.onnx": b"an older export"}])
def test_a_release_that_cannot_be_finished_leaves_what_was_there(checkpoint_path, tmp_path, older):
    out = tmp_path / "out"
    (out / "paragonsr2_realtime_report.json").mkdir(parents=True)
    for name, content in older.items():
        (out / name).write_bytes(content)
    with pytest.raises(OutputError):
        release_onnx(load_checkpoint(checkpoint_path), out)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == older


def test_a_model_cannot_reach_for_files_beside_it(tmp_path, monkeypatch):
    model = onnx.load_from_string(exported("realtime", 2))
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(100_000))
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for location in ("../secret.bin", str(secret)):
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        del weight.external_data[:]
        entry = weight.external_data.add()
        entry.key, entry.value = "location", location
        (folder / "evil.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ParagonError, match=r"evil\.onnx"):
            OnnxBackend(folder / "evil.onnx")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_foreign_model_tells_its_scale_by_running(precision):
    model = onnx.load_from_string(exported("realtime", 8, 20, precision))
    del model.metadata_props[:]
    backend = OnnxBackend(model.SerializeToString())
    assert backend.scale == 8
    assert backend.run(np.zeros((1, 3, 8, 9), np.float32)).shape == (1, 3, 64, 72)
    assert precision in backend.name
