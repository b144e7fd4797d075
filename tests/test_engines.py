"""TensorRT engines: planned, built, described and refused. Here against a stand-in for TensorRT,
which cannot be installed everywhere; tests marked gpu need the real one."""

from __future__ import annotations

import importlib.util
import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from conftest import photo_like
from fake_tensorrt import DataType, FakeTensorRt, inspection, layer
from fuzz.hostile_models import ONNX_KINDS, enlarging, hostile_onnx
from paragonsr2.cli.engine import build_or_keep
from paragonsr2.cli.engine import engine as engine_verb
from paragonsr2.errors import (
    BackendError,
    ExportError,
    MissingExtraError,
    OutputError,
    ParagonError,
    TileError,
    UsageError,
    WeightsError,
)
from paragonsr2.export.graph_reading import read_graph
from paragonsr2.files import sha256
from paragonsr2.tensorrt.backend import (
    EngineExecution,
    TensorRtBackend,
    open_engine,
    pad_to_profile,
)
from paragonsr2.tensorrt.building import (
    Order,
    build_engine,
    count_precisions,
    engine_path,
    existing_engine,
    identify,
    trtexec_line,
    workspace_bytes,
)
from paragonsr2.tensorrt.engine_files import (
    EngineDescription,
    EngineIdentity,
    Gpu,
    InputSize,
    Profile,
    description_path,
    parse_size,
    read_description,
    require_current,
    require_usable,
    write_description,
)
from paragonsr2.upscale.opening import open_model
from paragonsr2.upscale.tiling import spans
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.catalogue import bundled_path, find
from paragonsr2.weights.source import resolve
from paragonsr2.weights.store import load_checkpoint
from test_cli import fails_cleanly, run
from test_hostile_models import if_model

HAS_GPU = torch.cuda.is_available() and importlib.util.find_spec("tensorrt") is not None

GPU = Gpu("NVIDIA Test 1", "8.9")
PROFILE = Profile(InputSize(16, 16), InputSize(24, 32), InputSize(64, 80))


def save_graph(path, dtype=np.float32, *, inputs=1, weights="initializer", scale=2):
    """A network of one convolution that enlarges."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    kernel = numpy_helper.from_array(np.ones((3 * scale**2, 3, 3, 3), dtype), "w")
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["c"], ["output"], blocksize=scale),
    ]
    if weights == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=kernel))
    shape = [1, 3, "h", "w_"]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, element, shape) for n in ("input", "more")[:inputs]],
        [helper.make_tensor_value_info("output", element, [1, 3, "H", "W"])],
        [kernel] if weights == "initializer" else [],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    helper.set_model_props(model, {"scale": str(scale), "tile_halo": "8", "tile_multiple": "2"})
    onnx.save(model, str(path))
    return path


@pytest.fixture
def fp32_graph(tmp_path):
    return read_graph(save_graph(tmp_path / "a model_fp32.onnx"))


@pytest.fixture
def fp16_graph(tmp_path):
    return read_graph(save_graph(tmp_path / "a model_fp16.onnx", np.float16))


def order_in(folder, graph, precision="fp16", **changes):
    order = Order(
        model=folder / graph.name,
        output=folder / "out" / "m.engine",
        profile=PROFILE,
        precision=precision,
        workspace=3 << 30,
        timing_cache=folder / "out" / "tensorrt.timing",
    )
    return replace(order, **changes)


# Sizes


sides = st.integers(1, 16384)
sizes = st.builds(InputSize, sides, sides)


@given(sizes)
@settings(deadline=None)
def test_a_size_reads_back(size):
    assert parse_size("--min", str(size)) == size


def test_a_size_is_width_by_height():
    assert parse_size("--max", "1920x1080") == InputSize(height=1080, width=1920)
    assert str(InputSize(height=1080, width=1920)) == "1920x1080"


@pytest.mark.parametrize(
    "text", ["", "720", "720x", "0x5", "5x0", "-3x4", "3x4x5", "20000x4", "axb"]
)
def test_what_is_no_size_is_refused_by_its_flag(text):
    with pytest.raises(UsageError, match=r"^--opt "):
        parse_size("--opt", text)


@given(sizes, sizes, sizes)
@settings(deadline=None)
def test_a_profile_is_in_order_or_refused(a, b, c):
    ordered = a.height <= b.height <= c.height and a.width <= b.width <= c.width
    if ordered:
        assert Profile(a, b, c).sizes == (a, b, c)
    else:
        with pytest.raises(UsageError, match="--min over --opt to --max"):
            Profile(a, b, c)


@pytest.mark.parametrize("gibibytes", [0, -1, 5000, float("nan")])
def test_a_senseless_workspace_is_refused(gibibytes):
    with pytest.raises(UsageError, match="--workspace"):
        workspace_bytes(gibibytes)


# Identity and description


def profiles():
    def build(pairs):
        heights, widths = (sorted(p) for p in zip(*pairs, strict=True))
        return Profile(*(InputSize(h, w) for h, w in zip(heights, widths, strict=True)))

    return st.lists(st.tuples(sides, sides), min_size=3, max_size=3).map(build)


identities = st.builds(
    EngineIdentity,
    model_sha256=st.sampled_from(["0" * 64, "0" * 63 + "1"]),
    tensorrt=st.sampled_from(["10.3.0", "10.3.0.1", "11.4.0.106"]),
    gpu=st.builds(Gpu, st.text(max_size=8), st.sampled_from(["8.6", "8.9", "9.0"])),
    profile=st.one_of(st.just(PROFILE), profiles()),
    precision=st.sampled_from(["fp32", "fp16"]),
)


@given(identities, identities)
@settings(deadline=None)
def test_keys_are_equal_exactly_when_identities_are(a, b):
    assert (a.key == b.key) == (a == b)


IDENTITY = EngineIdentity("ab" * 32, "10.16.1.11", GPU, PROFILE, "fp16")
DESCRIPTION = EngineDescription(
    identity=IDENTITY, engine_sha256=sha256(b"engine"), model="m.onnx", scale=2,
    input="input", output="output", types={"input": "fp32", "output": "fp32"},
    layers={"fp16": 3}, metadata={"scale": "2", "tile_halo": "8", "tile_multiple": "2"},
)  # fmt: skip


@given(identities)
@settings(deadline=None)
def test_a_description_reads_back(tmp_path_factory, identity):
    path = tmp_path_factory.mktemp("d") / "m.engine"
    write_description(path, replace(DESCRIPTION, identity=identity))
    assert read_description(path) == replace(DESCRIPTION, identity=identity)


@pytest.mark.parametrize("part", [*asdict(DESCRIPTION), "format"])
@pytest.mark.parametrize("damage", ["lacks", "wrong"])
def test_a_damaged_description_is_refused(tmp_path, part, damage):
    path = tmp_path / "m.engine"
    write_description(path, DESCRIPTION)
    whole = json.loads(description_path(path).read_text())
    if damage == "lacks":
        del whole[part]
    elif part in ("identity", "scale", "format"):
        whole[part] = ["no"]
    else:
        whole["misspelt"] = whole.pop(part)
    description_path(path).write_text(json.dumps(whole))
    with pytest.raises(WeightsError, match="rebuild the engine"):
        read_description(path)


def test_an_engine_without_description_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"m\.engine\.json"):
        read_description(tmp_path / "m.engine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_sha256": "cd" * 32}, "model abababababab, not cdcdcdcdcdcd"),
        ({"tensorrt": "11.4.0.106"}, "TensorRT 10.16.1.11, not 11.4.0.106"),
        ({"gpu": Gpu("NVIDIA Test 2", "9.0")}, "GPU NVIDIA Test 1"),
        (
            {"profile": Profile(InputSize(1, 1), InputSize(2, 2), InputSize(3, 3))},
            "not 1x1..2x2..3x3",
        ),
        ({"precision": "fp32"}, "precision fp16, not fp32"),
    ],
)
def test_a_stale_engine_is_refused_in_one_line_that_says_why(tmp_path, change, said):
    require_current(tmp_path / "m.engine", IDENTITY, replace(IDENTITY))
    with pytest.raises(BackendError, match="stale") as caught:
        require_current(tmp_path / "m.engine", IDENTITY, replace(IDENTITY, **change))
    assert said in str(caught.value)
    assert "--force" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_engine_fits_its_machine_its_description_and_the_model_beside_it(tmp_path):
    path = tmp_path / "m.engine"
    here = {"tensorrt": IDENTITY.tensorrt, "gpu": GPU}
    require_usable(path, b"engine", DESCRIPTION, **here)
    with pytest.raises(WeightsError, match="is not the file"):
        require_usable(path, b"other", DESCRIPTION, **here)
    with pytest.raises(BackendError, match="TensorRT"):
        require_usable(path, b"engine", DESCRIPTION, tensorrt="11.0.0", gpu=GPU)
    with pytest.raises(BackendError, match="GPU"):
        require_usable(path, b"engine", DESCRIPTION, tensorrt="10.16.1.11", gpu=Gpu("x", "8.9"))
    (tmp_path / "m.onnx").write_bytes(b"retrained")
    with pytest.raises(BackendError, match="model"):
        require_usable(path, b"engine", DESCRIPTION, **here)


# Graphs


@pytest.mark.parametrize("weights", ["initializer", "constant"])
@pytest.mark.parametrize(("dtype", "precision"), [(np.float32, "fp32"), (np.float16, "fp16")])
def test_precision_is_read_from_the_weights_not_the_name(tmp_path, dtype, precision, weights):
    wrong_name = tmp_path / f"m_{'fp16' if precision == 'fp32' else 'fp32'}.onnx"
    graph = read_graph(save_graph(wrong_name, dtype, weights=weights))
    assert (graph.precision, graph.input, graph.output) == (precision, "input", "output")
    assert graph.sha256 == sha256(wrong_name.read_bytes())
    assert graph.metadata["scale"] == "2"


@pytest.mark.parametrize(("kind", "precision"), [("onnx", "fp32"), ("onnx_fp16", "fp16")])
@pytest.mark.parametrize("variant", ["realtime", "photo"])
def test_our_own_exports_are_read(variant, kind, precision):
    entry = find(variant, 2)
    graph = read_graph(bundled_path(entry, kind))
    assert (graph.precision, graph.input, graph.output) == (precision, "input", "output")
    assert graph.metadata["scale"] == "2"
    network = load_checkpoint(bundled_path(entry, "safetensors")).network
    assert graph.metadata["tile_halo"] == str(network.tile_halo)


def test_what_no_engine_can_be_built_from_is_refused(tmp_path):
    bad = tmp_path / "bad.onnx"
    with pytest.raises(WeightsError, match="cannot read"):
        read_graph(bad)
    bad.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="not an ONNX model"):
        read_graph(bad)
    for trusted in (False, True):
        with pytest.raises((WeightsError, BackendError), match="2 inputs"):
            read_graph(save_graph(bad, inputs=2), trusted=trusted)
    with pytest.raises(BackendError, match="float32 input"):
        read_graph(save_graph(bad, np.float64))
    with pytest.raises(WeightsError, match="DOUBLE"):
        read_graph(save_graph(bad, np.float64), trusted=True)
    model = onnx.load(str(save_graph(bad)))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    bad.write_bytes(model.SerializeToString())
    for trusted in (False, True):
        with pytest.raises(WeightsError, match="one file"):
            read_graph(bad, trusted=trusted)


@pytest.mark.parametrize(
    "model", [enlarging(metadata={"scale": "4"}), enlarging(metadata={"scale": "0"})]
)
def test_an_engine_is_not_built_of_a_wrong_scale(tmp_path, model):
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=r"metadata says x4|scale"):
        read_graph(tmp_path / "m.onnx")


def test_a_strangers_graph_needs_trust_to_become_an_engine(tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes(if_model())
    arguments = ("engine", model, "-o", tmp_path / "m.engine", "--print-trtexec")
    refused = run(*arguments)
    fails_cleanly(refused, 3)
    assert "uses If" in refused.stderr
    done = run(*arguments, "--trust-model")
    assert done.returncode == 0, done.stderr
    assert "trtexec" in done.stdout


@pytest.mark.parametrize("number", range(len(ONNX_KINDS) + 1))
def test_no_engine_is_built_of_a_hostile_graph(tmp_path, number, monkeypatch):
    """Whatever is wrong is one line, before TensorRT sees anything of the file."""
    kind, content = hostile_onnx(number, 5)
    model = tmp_path / f"{kind}.onnx"
    model.write_bytes(content)
    monkeypatch.setattr("paragonsr2.tensorrt.engine_files.load_tensorrt", FakeTensorRt)
    monkeypatch.setattr("paragonsr2.tensorrt.engine_files.find_gpu", lambda: (None, GPU))
    with pytest.raises(ParagonError) as told:
        engine_verb(model, tmp_path / "m.engine", precision=None)
    assert len(str(told.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


# Command lines


def words(line):
    first, *rest = shlex.split(line)
    assert first == "trtexec"
    return dict(word.removeprefix("--").partition("=")[::2] for word in rest)


@pytest.mark.parametrize("major", [10, 11])
def test_trtexec_is_told_everything(tmp_path, fp16_graph, major):
    order = order_in(tmp_path, fp16_graph)
    told = words(trtexec_line(major, fp16_graph, order))
    assert told["onnx"] == str(tmp_path / "a model_fp16.onnx")
    assert told["saveEngine"] == str(order.output)
    assert told["minShapes"] == "input:1x3x16x16"
    assert told["optShapes"] == "input:1x3x24x32"
    assert told["maxShapes"] == "input:1x3x64x80"
    assert told["memPoolSize"] == "workspace:3072"
    assert told["timingCacheFile"] == str(order.timing_cache)


def precision_words(major, graph, precision, folder):
    told = words(trtexec_line(major, graph, order_in(folder, graph, precision)))
    return set(told) & {"fp16", "stronglyTyped", "noTF32"}


def test_trtexec_is_told_the_precision_as_its_version_wants(tmp_path, fp32_graph, fp16_graph):
    assert precision_words(10, fp32_graph, "fp16", tmp_path) == {"fp16"}
    assert precision_words(10, fp16_graph, "fp16", tmp_path) == {"stronglyTyped"}
    assert precision_words(11, fp16_graph, "fp16", tmp_path) == set()
    for major in (10, 11):
        assert precision_words(major, fp32_graph, "fp32", tmp_path) == {"noTF32"}


def test_impossible_precisions_are_refused_with_the_file_to_use(tmp_path, fp32_graph, fp16_graph):
    with pytest.raises(ExportError, match=r"a model_fp16\.onnx"):
        trtexec_line(11, fp32_graph, order_in(tmp_path, fp32_graph, "fp16"))
    with pytest.raises(ExportError, match=r"\*_fp32\.onnx"):
        trtexec_line(10, fp16_graph, order_in(tmp_path, fp16_graph, "fp32"))
    with pytest.raises(ExportError, match="too old"):
        trtexec_line(8, fp32_graph, order_in(tmp_path, fp32_graph, "fp32"))


# Building


def built(folder, trt, graph, precision="fp16", **changes):
    order = order_in(folder, graph, precision, **changes)
    return order, build_engine(trt, GPU, graph, order)


def test_tensorrt_10_builds_fp16_from_an_fp32_graph_by_flag(tmp_path, fp32_graph):
    trt = FakeTensorRt("10.16.1.11")
    order, description = built(tmp_path, trt, fp32_graph)
    assert trt.ordered.flags == {"FP16"}
    assert trt.ordered.network_flags == 0
    assert trt.ordered.workspace == 3 << 30
    assert description == read_description(order.output)
    assert description.layers == {"fp16": 1}
    assert description.scale == 2
    shapes = json.loads(order.output.read_bytes())["shapes"]["input"]
    assert shapes == [[1, 3, 16, 16], [1, 3, 24, 32], [1, 3, 64, 80]]


@pytest.mark.parametrize(("version", "flags"), [("10.16.1.11", 2), ("11.4.0.106", 0)])
def test_a_typed_graph_is_built_strongly_typed(tmp_path, fp16_graph, version, flags):
    trt = FakeTensorRt(version, graph_fp16=True, io_type=DataType.HALF)
    _, description = built(tmp_path, trt, fp16_graph)
    assert trt.ordered.flags == set()
    assert trt.ordered.network_flags == flags
    assert description.types == {"input": "fp16", "output": "fp16"}
    assert description.identity.tensorrt == version


@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
def test_fp32_means_float32_products_too(tmp_path, fp32_graph, version):
    trt = FakeTensorRt(version)
    _, description = built(tmp_path, trt, fp32_graph, "fp32")
    assert trt.ordered.flags == set()
    assert trt.ordered.cleared == {"TF32"}
    assert description.layers == {"fp32": 2}


def test_tensorrt_11_cannot_build_fp16_from_an_fp32_graph(tmp_path, fp32_graph):
    with pytest.raises(ExportError, match=r"_fp16\.onnx"):
        built(tmp_path, FakeTensorRt("11.4.0.106"), fp32_graph)


@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
@pytest.mark.parametrize(
    "information",
    [
        inspection(layer(weights="Float")),
        inspection(layer("Reformat", **{"Format/Datatype": "Half"}), layer(weights="Float")),
        inspection("only a name"),
        inspection(),
        "no JSON",
        "[]",
    ],
)
def test_fp16_that_was_not_built_is_an_error_and_leaves_nothing(
    tmp_path, fp16_graph, version, information
):
    trt = FakeTensorRt(version, information=information, graph_fp16=True)
    with pytest.raises(ExportError, match="FP16 was requested"):
        built(tmp_path, trt, fp16_graph)
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert left == ["tensorrt.timing"]


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (
            {"parse_errors": ["unknown operator\n Foo", "and more"]},
            "unknown operator Foo.*node_7.*1 more",
        ),
        ({"failures": ["profile"]}, "refuses the sizes 16x16"),
        ({"failures": ["build"]}, "no kernel for node_7"),
        ({"failures": ["load"]}, "cannot load"),
        ({"failures": ["memory"]}, "lower --max"),
        ({"io_type": DataType.INT32}, "must be float32 or float16"),
        ({"scale": 4}, "states x2, but its engine enlarges x4"),
    ],
)
def test_what_goes_wrong_is_one_line_and_the_old_engine_stays(
    tmp_path, fp32_graph, behaviour, said
):
    order = order_in(tmp_path, fp32_graph)
    order.output.parent.mkdir()
    order.output.write_bytes(b"the old one")
    with pytest.raises(ExportError, match=said) as caught:
        build_engine(FakeTensorRt(**behaviour), GPU, fp32_graph, order)
    assert "\n" not in str(caught.value)
    assert order.output.read_bytes() == b"the old one"
    assert not description_path(order.output).exists()


def test_an_unwritable_engine_is_an_error(tmp_path, fp32_graph):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OutputError):
        built(tmp_path, FakeTensorRt(), fp32_graph)


def test_measured_speeds_are_kept_between_builds(tmp_path, fp32_graph):
    trt = FakeTensorRt()
    order, _ = built(tmp_path, trt, fp32_graph)
    assert trt.ordered.timing == b""
    built(tmp_path, trt, fp32_graph)
    assert trt.ordered.timing == b"+measured"
    order.timing_cache.write_bytes(b"of another GPU")
    built(tmp_path, trt, fp32_graph)
    assert trt.ordered.timing == b""


def test_an_engine_that_is_there_is_taken_or_refused(tmp_path, fp32_graph):
    trt = FakeTensorRt()
    identity = identify(trt, GPU, fp32_graph, PROFILE, "fp16")
    order = order_in(tmp_path, fp32_graph)
    assert existing_engine(order, identity) is None
    description = build_engine(trt, GPU, fp32_graph, order)
    assert existing_engine(order, identity) == description
    with pytest.raises(BackendError, match="stale"):
        existing_engine(order, replace(identity, precision="fp32"))
    order.output.write_bytes(b"exchanged")
    with pytest.raises(WeightsError, match="is not the file"):
        existing_engine(order, identity)


def test_a_folder_holds_an_engine_for_each_key(tmp_path):
    named = engine_path(tmp_path / "x.engine", tmp_path / "m.onnx", IDENTITY.key)
    assert named == tmp_path / "x.engine"
    other = replace(IDENTITY, precision="fp32").key
    kept = {engine_path(tmp_path, tmp_path / "m.onnx", key) for key in (IDENTITY.key, other)}
    assert len(kept) == 2
    assert all(path.parent == tmp_path and path.suffix == ".engine" for path in kept)
    with pytest.raises(UsageError, match="folder"):
        engine_path(tmp_path / "x.trt", tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("told", "precision"),
    [
        (layer(weights="Half"), "fp16"),
        (layer(weights="Float"), "fp32"),
        (layer("gemm", TacticName="sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwc"), "fp16"),
        (layer("gemm", TacticName="sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32"), "fp32"),
        (layer("gemm", TacticName="sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn"), "fp32"),
        (layer("kgen", Outputs=[{"Format/Datatype": "Half"}]), "fp16"),
        (layer("kgen", Outputs=[{"Format/Datatype": "Float"}]), "fp32"),
        (layer("PointWise", Outputs=[{"Format/Datatype": "Row major linear FP16 format"}]), "fp16"),
        (layer("kgen", Outputs=[{"Format/Datatype": "Int32"}]), "other"),
        (layer("PointWise"), "other"),
    ],
)
def test_the_precision_of_a_layer(told, precision):
    assert count_precisions(inspection(told, layer("Reformat"))) == {precision: 1}


# The backend


def backend_of(trt, description=DESCRIPTION):
    content = json.dumps(
        {"shapes": {"input": [(1, 3, *asdict(s).values()) for s in PROFILE.sizes]}}
    )
    stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None)
    execute = EngineExecution(
        trt, content.encode(), description, torch.device("cpu"), stream, nullcontext
    )
    return TensorRtBackend(description, execute, lambda: 1 << 30, "under test")


def repeated(x, scale=2):
    return x.repeat(scale, 2).repeat(scale, 3)


@given(height=st.integers(1, 64), width=st.integers(1, 80), half=st.booleans())
@settings(deadline=None, max_examples=60)
def test_every_size_from_one_pixel_runs(height, width, half):
    backend = backend_of(FakeTensorRt(io_type=DataType.HALF if half else DataType.FLOAT))
    x = np.random.default_rng(height).integers(0, 256, (1, 3, height, width)) / np.float32(256)
    out = backend.run(x.astype(np.float32))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, repeated(x))


@given(height=st.integers(1, 64), width=st.integers(1, 80))
@settings(deadline=None)
def test_padding_repeats_the_far_edges(height, width):
    x = np.random.default_rng(width).random((1, 3, height, width), dtype=np.float32)
    padded = pad_to_profile(x, PROFILE)
    assert padded.shape == (1, 3, max(height, 16), max(width, 16))
    rows = np.minimum(np.arange(padded.shape[2]), height - 1)
    columns = np.minimum(np.arange(padded.shape[3]), width - 1)
    np.testing.assert_array_equal(padded, x[:, :, rows][:, :, :, columns])


@pytest.mark.parametrize("size", [(65, 20), (20, 81)])
def test_too_large_a_tile_says_what_to_do(size):
    with pytest.raises(BackendError, match=r"--tile.*--max"):
        backend_of(FakeTensorRt()).run(np.zeros((1, 3, *size), np.float32))


def test_threads_take_turns_on_one_engine():
    backend = backend_of(FakeTensorRt())
    pictures = [np.full((1, 3, 20, 20), value / 8, np.float32) for value in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for x, out in zip(pictures, pool.map(backend.run, pictures), strict=True):
            np.testing.assert_array_equal(out, repeated(x))


@pytest.mark.parametrize("failure", ["load", "memory"])
def test_an_engine_that_does_not_load_says_so(failure):
    with pytest.raises(BackendError, match="build it"):
        backend_of(FakeTensorRt(failures=[failure]))


@pytest.mark.parametrize("failure", ["shape", "execute"])
def test_an_engine_that_does_not_run_says_so(failure):
    with pytest.raises(BackendError, match="--tile"):
        backend_of(FakeTensorRt(failures=[failure])).run(np.zeros((1, 3, 20, 20), np.float32))


def test_the_backend_is_what_the_model_said():
    backend = backend_of(FakeTensorRt())
    assert (backend.scale, backend.halo, backend.multiple_of, backend.max_side) == (2, 8, 2, 64)
    damaged = replace(DESCRIPTION, metadata={"tile_halo": "wide"})
    with pytest.raises(WeightsError, match="damaged"):
        backend_of(FakeTensorRt(), damaged)


def test_images_larger_than_the_engine_go_through_in_tiles():
    pixels = photo_like(150, 211)
    out = Upscaler.around(backend_of(FakeTensorRt()))(pixels)
    np.testing.assert_array_equal(out, pixels.repeat(2, 0).repeat(2, 1))


@given(
    max_side=st.integers(16, 400),
    halo=st.integers(0, 90),
    multiple=st.sampled_from([1, 2, 16]),
    length=st.integers(1, 700),
)
@settings(deadline=None)
def test_automatic_tiles_fit_the_engine_or_say_why_not(max_side, halo, multiple, length):
    backend = SimpleNamespace(
        name="b", scale=2, halo=halo, multiple_of=multiple, bytes_per_pixel=9, max_side=max_side,
        run=repeated, free_memory=lambda: 1 << 40,
    )  # fmt: skip
    if max_side < 16 + 2 * halo + multiple - 1:  # no room for the smallest tile
        with pytest.raises(TileError, match="--max"):
            Upscaler.around(backend)
        return
    for span in spans(length, Upscaler.around(backend).tile, halo, multiple):
        assert span.read_stop - span.read_start <= max_side


def save_engine(folder):
    (folder / "m.engine").write_bytes(b"engine")
    write_description(folder / "m.engine", DESCRIPTION)
    return folder / "m.engine"


def open_named(model, **options):
    return open_model(resolve(model), **options)


def test_engines_are_opened_by_their_suffix(tmp_path):
    engine = save_engine(tmp_path)
    if not HAS_GPU:
        with pytest.raises((MissingExtraError, BackendError)):
            open_named(engine)
    with pytest.raises(BackendError, match="not one; drop --backend torch"):
        open_named(engine, backend="torch")
    with pytest.raises(BackendError, match="paragonsr2 engine"):
        open_named(tmp_path / "m.onnx", backend="tensorrt")
    with pytest.raises(BackendError, match="paragonsr2 engine"):
        open_named("realtime", backend="tensorrt")
    with pytest.raises(BackendError, match="is fp16"):
        open_engine(engine, precision="fp32")
    with pytest.raises(WeightsError, match="cannot read"):
        open_engine(tmp_path / "none.engine")


# The command


def test_the_command_builds_keeps_and_refuses(tmp_path, fp32_graph, capsys):
    trt, order = FakeTensorRt(), order_in(tmp_path, fp32_graph)
    build_or_keep(trt, GPU, fp32_graph, order, force=False)
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "x2  layers: 1 fp16  tensors: input fp32, output fp32", str(order.output)
    ]  # fmt: skip
    assert trtexec_line(10, fp32_graph, order) in told.err
    before = order.output.stat().st_mtime_ns
    build_or_keep(trt, GPU, fp32_graph, order, force=False)
    again = capsys.readouterr()
    assert again.out == told.out
    assert "--force" in again.err
    assert order.output.stat().st_mtime_ns == before
    newer = FakeTensorRt("10.17.0")
    with pytest.raises(BackendError, match="stale"):
        build_or_keep(newer, GPU, fp32_graph, order, force=False)
    build_or_keep(newer, GPU, fp32_graph, order, force=True)
    assert read_description(order.output).identity.tensorrt == "10.17.0"


def test_the_line_is_printed_without_tensorrt(tmp_path):
    model = save_graph(tmp_path / "m_fp32.onnx")
    done = run("engine", model, "-o", tmp_path / "m.engine", "--precision", "fp16", "--min", "8x8",
               "--print-trtexec", "--trt-major", "10")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = words(done.stdout.strip())
    assert told["minShapes"] == "input:1x3x8x8"
    assert "fp16" in told
    fails_cleanly(
        run("engine", model, "-o", tmp_path / "m.engine", "--precision", "fp16",
            "--print-trtexec", "--trt-major", "11"), 3)  # fmt: skip
    assert sorted(tmp_path.iterdir()) == [model]


@pytest.mark.skipif(HAS_GPU, reason="TensorRT is here")
def test_without_tensorrt_the_command_names_the_extra(tmp_path):
    model = save_graph(tmp_path / "m.onnx")
    done = run("engine", model, "-o", tmp_path / "m.engine")
    fails_cleanly(done, 3)
    assert "paragonsr2[tensorrt]" in done.stderr
    done = run("upscale", "x.png", "--model", save_engine(tmp_path))
    fails_cleanly(done, 3)
    assert "paragonsr2[tensorrt]" in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ["-o", "m.trt"],
        ["-o", "m.engine", "--min", "16"],
        ["-o", "m.engine", "--min", "99x99", "--opt", "50x50"],
        ["-o", "m.engine", "--workspace", "0"],
        ["-o", "m.engine", "--trt-major", "10"],
    ],
)
def test_wrong_flags_are_usage_errors(tmp_path, flags):
    fails_cleanly(run("engine", "m.onnx", *flags, cwd=tmp_path), 2)


# The real thing


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs TensorRT and a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_real_engine_gives_the_same_picture(tmp_path, precision):
    model = save_graph(tmp_path / "m.onnx", np.float16 if precision == "fp16" else np.float32)
    done = run("engine", model, "-o", tmp_path / "m.engine", "--min", "16x16", "--opt", "32x24",
               "--max", "80x64")  # fmt: skip
    assert done.returncode == 0, done.stderr
    backend = open_engine(tmp_path / "m.engine")
    for height, width in ((16, 16), (31, 47), (64, 80)):
        x = np.random.default_rng(1).random((1, 3, height, width), dtype=np.float32)
        kernel = torch.ones(12, 3, 3, 3)
        expected = torch.nn.functional.conv2d(torch.from_numpy(x), kernel, padding=1)
        # All kernels are equal, so the order of the channels of a shuffle is of no matter.
        expected = torch.nn.functional.pixel_shuffle(expected, 2).numpy()
        bound = 0.05 if precision == "fp16" else 1e-4
        np.testing.assert_allclose(backend.run(x), expected, atol=bound)
