"""Places in other people's tools: ComfyUI's nodes and Triton's model repository."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import types

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from typer.testing import CliRunner

from benchmark import vapoursynth_frames
from benchmark.gpu_stand_ins import LAVAPIPE
from benchmark.torchvision_names import torchvision_names
from conftest import ROOT, photo_like
from paragonsr2.cli.main import app
from paragonsr2.errors import ExportError, OptionError
from paragonsr2.export.other_tools import export_format
from paragonsr2.export.triton import TritonModel, write_repository
from paragonsr2.weights.catalogue import bundled_bytes, bundled_path, entries, find
from paragonsr2.weights.source import resolve

COMFYUI = ROOT / "integrations" / "comfyui"


@pytest.fixture
def nodes(monkeypatch, tmp_path):
    """The package as ComfyUI loads it, with a stand-in for its registry of folders."""
    with torchvision_names():
        pytest.importorskip("spandrel", reason="spandrel is not installed")
    registry = types.ModuleType("folder_paths")
    registry.get_filename_list = lambda _: ["mine.safetensors"]
    registry.get_full_path = lambda _, name: str(tmp_path / name)
    monkeypatch.setitem(sys.modules, "folder_paths", registry)
    found = importlib.util.spec_from_file_location("comfyui_nodes", COMFYUI / "__init__.py")
    package = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "comfyui_nodes", package)
    found.loader.exec_module(package)
    return package.NODE_CLASS_MAPPINGS


def test_comfyui_lists_bundled_models_and_files(nodes):
    shown = nodes["LoadParagonSR2"].INPUT_TYPES()["required"]["model"][0]
    assert {f"{one.model} x{one.scale}" for one in entries()} | {"mine.safetensors"} == set(shown)


@pytest.mark.parametrize("kind", ["onnx", "onnx_fp16"])
@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_a_program_that_infers_the_scale_from_shapes_finds_it(entry, kind):
    # chaiNNer tells an image model, its channels and its scale apart by the shapes of its input, by
    # those of its output for an input of 16x16, and by the type that its name does not say.
    model = onnx.load_from_string(bundled_bytes(entry, kind))
    given, made = model.graph.input[0].type.tensor_type, model.graph.output[0].type.tensor_type
    assert given.shape.dim[1].dim_value == 3
    assert given.elem_type == (TensorProto.FLOAT if kind == "onnx" else TensorProto.FLOAT16)
    for dimension, value in zip(given.shape.dim, (1, 3, 16, 16), strict=True):
        dimension.dim_value = value
    for dimension in made.shape.dim[2:]:
        dimension.Clear()
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output[0]
    side = 16 * entry.scale
    assert [d.dim_value for d in inferred.type.tensor_type.shape.dim] == [1, 3, side, side]


def test_comfyui_enlarges_in_tiles_as_in_one_piece(nodes):
    (model,) = nodes["LoadParagonSR2"]().load("realtime x2")
    image = torch.from_numpy(photo_like(70, 90)[None] / 255).float()
    run = nodes["UpscaleParagonSR2"]().upscale
    (whole,), (tiled,) = run(model, image, 0), run(model, image, 32)
    assert whole.shape == (1, 140, 180, 3)
    assert (whole - tiled).abs().max() < 1e-5
    session = onnxruntime.InferenceSession(str(bundled_path(find("realtime", 2), "onnx")))
    wanted = session.run(None, {"input": image.movedim(-1, 1).numpy()})[0].clip(0, 1)
    assert np.abs(wanted - whole.movedim(-1, 1).numpy()).max() < 1e-4


def test_comfyui_loads_a_checkpoint_of_its_own_folder(nodes, tmp_path):
    content = bundled_bytes(find("realtime", 4), "safetensors")
    (tmp_path / "mine.safetensors").write_bytes(content)
    (model,) = nodes["LoadParagonSR2"]().load("mine.safetensors")
    assert model.scale == 4


def test_the_example_workflow_uses_nodes_that_exist(nodes):
    workflow = json.loads((COMFYUI / "workflow.json").read_text(encoding="utf-8"))
    ours = {node["type"] for node in workflow["nodes"]} - {"LoadImage", "SaveImage"}
    assert ours == set(nodes)


def test_triton_serves_the_newest_version(tmp_path):
    model = TritonModel("paragonsr2_realtime_x2", "onnxruntime", "fp32", max_batch=4)
    content = bundled_bytes(find("realtime", 2), "onnx")
    paths = [write_repository(tmp_path, model, content) for _ in range(2)]
    assert [path.parent.name for path in paths] == ["1", "2"]
    config = (tmp_path / model.name / "config.pbtxt").read_text(encoding="utf-8")
    # What the server checks: names, types and shapes without the batch.
    session = onnxruntime.InferenceSession(str(paths[-1]))
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        assert f'name: "{tensor.name}" data_type: TYPE_FP32 dims: [ 3, -1, -1 ]' in config
        assert isinstance(tensor.shape[0], str)
    assert re.search(r"^max_batch_size: 4$", config, flags=re.MULTILINE)
    batch = np.random.default_rng(0).random((3, 3, 8, 9), np.float32)
    assert session.run(None, {"input": batch})[0].shape == (3, 3, 16, 18)


@pytest.mark.parametrize("name", ["", "a/b", "..\\x", "a b"])
def test_triton_refuses_names_that_are_no_folder(tmp_path, name):
    with pytest.raises(OptionError, match="needs a name"):
        write_repository(tmp_path, TritonModel(name, "onnxruntime", "fp32"), b"x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("ncnn", ["paragonsr2_realtime_x4.bin", "paragonsr2_realtime_x4.param"]),
        ("glsl", ["paragonsr2_realtime_x4.glsl"]),
        ("wgsl", ["paragonsr2_realtime_x4.wgsl.json"]),
        ("triton", ["config.pbtxt", "model.onnx"]),
    ],
)
def test_every_format_has_its_command(tmp_path, kind, files):
    if kind == "ncnn":
        pytest.importorskip("pnnx", reason="PNNX is not installed")
    flags = ["--model", "realtime", "--scale", "4", "--format", kind, "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["export", *flags], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(path.name for path in found) == files


def test_a_format_that_cannot_hold_the_network_leaves_no_file(tmp_path):
    with pytest.raises(ExportError, match="cannot become a shader"):
        export_format(resolve("stream", 2), "glsl", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(OptionError, match="has no checkpoint"):
        export_format(resolve("bicubic"), "glsl", tmp_path / "out")


@pytest.mark.parametrize("backend", ["ort", "ov", "ncnn"])
@pytest.mark.parametrize(("model", "scale"), [("realtime", 2), ("stream", 4)])
def test_vapoursynth_computes_the_network(model, scale, backend):
    python = vapoursynth_frames.interpreter()
    if python is None:
        pytest.skip("VapourSynth is not installed, nor in .venv-vapoursynth (make vapoursynth)")
    if f"vapoursynth-mlrt-{backend}" not in vapoursynth_frames.versions(python):
        pytest.skip(f"vapoursynth-mlrt-{backend} is not installed")
    if backend == "ncnn" and not LAVAPIPE.exists():
        pytest.skip("ncnn's filter needs a Vulkan (Debian: mesa-vulkan-drivers)")
    x = np.ascontiguousarray(photo_like(37, 58).transpose(2, 0, 1)[None] / 255, np.float32)
    made = vapoursynth_frames.enlarge(python, x, model, scale, backend).picture
    wanted = onnxruntime.InferenceSession(str(bundled_path(find(model, scale), "onnx")))
    np.testing.assert_allclose(made, wanted.run(None, {"input": x})[0], atol=1e-5)
