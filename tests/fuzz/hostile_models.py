"""Model files that a stranger could hand over: ONNX, pickled and safetensors, each from a seed."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save

from fuzz.mutate import mutate
from paragonsr2.network.attention import WINDOW_KEY
from paragonsr2.network.generator import build
from paragonsr2.weights.store import describe

Nodes = list[onnx.NodeProto]
Stored = list[onnx.TensorProto]


def enlarging(
    extra: Nodes | None = None,
    stored: Stored | None = None,
    *,
    shape: tuple[object, ...] = (1, 3, "h", "w"),
    scale: int = 2,
    channels: int = 3,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """A network of one convolution; ``extra`` makes ``more``, which is added to its result."""
    kernel = np.full((channels * scale**2, 3, 3, 3), 1 / 27, np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["c"], ["d" if extra else "output"], blocksize=scale),
        *(extra or []),
    ]
    if extra:
        nodes.append(helper.make_node("Add", ["d", "more"], ["output"]))
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, channels, "H", "W"])],
        [numpy_helper.from_array(kernel, "w"), *(stored or [])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    helper.set_model_props(model, metadata or {})
    return model


def _integers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _to_one(made: Nodes) -> Nodes:
    """Reduce what ``made`` calls ``big`` to one number, ``more``."""
    return [*made, helper.make_node("ReduceMax", ["big"], ["more"], keepdims=0)]


def _filled(rng: random.Random) -> onnx.ModelProto:
    side = rng.choice((10**5, 10**6))
    made = [helper.make_node("ConstantOfShape", ["s"], ["big"])]
    return enlarging(_to_one(made), [_integers("s", side, rng.choice((10**4, 10**5)))])


def _filled_by_the_image(rng: random.Random) -> onnx.ModelProto:
    """The shape comes from the pixels, so that nothing can be inferred."""
    made = [
        helper.make_node("ReduceMax", ["input"], ["m"], keepdims=0),
        helper.make_node("Abs", ["m"], ["a"]),
        helper.make_node("Add", ["a", "large"], ["f"]),
        helper.make_node("Cast", ["f"], ["i"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["i", "one"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["big"]),
    ]
    large = numpy_helper.from_array(np.array(rng.choice((1e10, 1e11)), np.float32), "large")
    return enlarging(_to_one(made), [large, _integers("one", 1)])


def _spread(rng: random.Random) -> onnx.ModelProto:
    kind = rng.choice(("Expand", "Tile"))
    sizes = (1, 1, rng.choice((10**4, 10**5)), 10**5)
    made = [
        helper.make_node("ReduceMean", ["input"], ["m"]),
        helper.make_node(kind, ["m", "s"], ["big"]),
    ]
    return enlarging(_to_one(made), [_integers("s", *sizes)])


def _counted(rng: random.Random) -> onnx.ModelProto:
    made = [helper.make_node("Range", ["from", "to", "by"], ["i"])]
    made.append(helper.make_node("Cast", ["i"], ["big"], to=TensorProto.FLOAT))
    numbers = {"from": 0, "to": rng.choice((10**10, 10**11)), "by": 1}
    stored = [numpy_helper.from_array(np.array(n, np.int64), name) for name, n in numbers.items()]
    return enlarging(_to_one(made), stored)


def _padded(rng: random.Random) -> onnx.ModelProto:
    wide = rng.choice((10**5, 10**6))
    made = [helper.make_node("Pad", ["input", "p"], ["big"])]
    return enlarging(_to_one(made), [_integers("p", 0, 0, wide, wide, 0, 0, wide, wide)])


def _resized(rng: random.Random) -> onnx.ModelProto:
    factor = float(rng.choice((3000, 30000)))
    made = [helper.make_node("Resize", ["input", "", "f"], ["big"])]
    factors = numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), "f")
    return enlarging(_to_one(made), [factors])


def _product(rng: random.Random) -> onnx.ModelProto:
    """The outer product of a long vector with itself, each of whose sizes is innocent."""
    side = rng.choice((200_000, 400_000))
    made = [
        helper.make_node("ConstantOfShape", ["a"], ["x"]),
        helper.make_node("ConstantOfShape", ["b"], ["y"]),
        helper.make_node("MatMul", ["x", "y"], ["big"]),
    ]
    return enlarging(_to_one(made), [_integers("a", side, 1), _integers("b", 1, side)])


def _looping(rng: random.Random) -> onnx.ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c_in"], ["c_out"]),
            helper.make_node("Identity", ["v_in"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, []),
        ],
    )
    made = [
        helper.make_node("ReduceMax", ["input"], ["m"], keepdims=0),
        helper.make_node("Loop", ["", "true", "m"], ["more"], body=body),
    ]
    return enlarging(made, [numpy_helper.from_array(np.array(True), "true")])


def _branching(rng: random.Random) -> onnx.ModelProto:
    def branch(name: str) -> onnx.GraphProto:
        result = helper.make_tensor_value_info("r", TensorProto.FLOAT, [])
        value = numpy_helper.from_array(np.array(0, np.float32))
        return helper.make_graph(
            [helper.make_node("Constant", [], ["r"], value=value)], name, [], [result]
        )

    node = helper.make_node(
        "If", ["true"], ["more"], then_branch=branch("a"), else_branch=branch("b")
    )
    return enlarging([node], [numpy_helper.from_array(np.array(True), "true")])


def _drawing(rng: random.Random) -> onnx.ModelProto:
    kind = rng.choice(("RandomNormal", "RandomUniform"))
    return enlarging(_to_one([helper.make_node(kind, [], ["big"], shape=[10**5, 10**5])]))


def _foreign_operator(rng: random.Random) -> onnx.ModelProto:
    domain = rng.choice(("com.microsoft", "evil"))
    return enlarging([helper.make_node("Run", ["input"], ["more"], domain=domain)])


def _lying_tensor(rng: random.Random) -> onnx.ModelProto:
    dims = rng.choice(([10**9], [10**5, 10**6], [-1], [2**62, 2**62]))
    tensor = onnx.TensorProto(name="t", data_type=TensorProto.FLOAT, dims=dims)
    tensor.raw_data = bytes(4) if rng.random() < 0.5 else b""
    return enlarging([helper.make_node("ReduceMax", ["t"], ["more"], keepdims=0)], [tensor])


def _outside(rng: random.Random) -> onnx.ModelProto:
    tensor = onnx.TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=rng.choice(("/etc/passwd", "../../x")))
    return enlarging([helper.make_node("Identity", ["t"], ["more"])], [tensor])


def _sparse(rng: random.Random) -> onnx.ModelProto:
    model = enlarging([helper.make_node("ReduceMax", ["t"], ["more"], keepdims=0)])
    values = numpy_helper.from_array(np.ones(1, np.float32), "t")
    where = numpy_helper.from_array(np.zeros(1, np.int64), "where")
    sparse = helper.make_sparse_tensor(values, where, [10**5, rng.choice((10**5, 10**6))])
    model.graph.sparse_initializer.append(sparse)
    return model


def _functions(rng: random.Random) -> onnx.ModelProto:
    """Each function calls the one before it many times."""
    model = enlarging([helper.make_node("f9", ["input"], ["big"], domain="f")])
    model.graph.node.append(helper.make_node("ReduceMax", ["big"], ["more"], keepdims=0))
    ids = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    for n in range(10):
        inner = "Abs" if n == 0 else f"f{n - 1}"
        calls = [
            helper.make_node(inner, [f"x{i}"], [f"x{i + 1}"], domain="f" if n else "")
            for i in range(20)
        ]
        model.functions.append(helper.make_function("f", f"f{n}", ["x0"], ["x20"], calls, ids))
    model.opset_import.append(ids[1])
    return model


def _of_another_shape(rng: random.Random) -> onnx.ModelProto:
    return rng.choice(
        (
            lambda: enlarging(scale=1),
            lambda: enlarging(channels=1),
            lambda: enlarging(shape=(0, 3, "h", "w")),
            lambda: enlarging(shape=(1, 3, 64, 64)),
            lambda: enlarging(shape=(1, 1, "h", "w")),
            lambda: enlarging(shape=()),
        )
    )()


#: What a file may say about itself, and must not.
WRONG_METADATA = (
    {"scale": "false"}, {"scale": "0"}, {"scale": "-2"}, {"scale": "1"}, {"scale": "1000000000"},
    {"scale": "3"}, {"scale": "9" * 5000}, {"scale": "nan"}, {"tile_halo": "-100"},
    {"tile_halo": "100000000"}, {"tile_multiple": "0"}, {"tile_multiple": "-1"},
    {"floats_per_pixel": "0"}, {"floats_per_pixel": "1e3"}, {"upsampler_alpha": "nan"},
    {"upsampler_alpha": "7"}, {"training": "[1]"}, {"training": "null"}, {"training": "{"},
    {"training": '{"a": NaN}'}, {"training": "[" * 200_000}, {"training": '{"a":' * 100_000},
    {"parameters": "many"}, {"kmacs_per_pixel": "inf"},
)  # fmt: skip


def _wrong_metadata(rng: random.Random) -> onnx.ModelProto:
    return enlarging(metadata=dict(rng.choice(WRONG_METADATA)))


ONNX_KINDS: tuple[Callable[[random.Random], onnx.ModelProto], ...] = (
    _filled, _filled_by_the_image, _spread, _counted, _padded, _resized, _product, _looping,
    _branching, _drawing, _foreign_operator, _lying_tensor, _outside, _sparse, _functions,
    _of_another_shape, _wrong_metadata,
)  # fmt: skip


def hostile_onnx(number: int, seed: int) -> tuple[str, bytes]:
    """The kind and the content of an ONNX file."""
    rng = random.Random(f"{seed}-onnx-{number}")
    kind = (*ONNX_KINDS, None)[number % (len(ONNX_KINDS) + 1)]
    if kind is None:
        return "spoiled", mutate(enlarging().SerializeToString(), rng)
    return kind.__name__.strip("_"), kind(rng).SerializeToString()


def _good_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return build("realtime", 2).state_dict()


def _saved(value: object, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


class Runs:
    """Unpickling it would run a command, which leaves a file to be seen."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        import os

        return os.system, (f"touch {self.mark}",)


def _deflated(rng: random.Random) -> bytes:
    """An archive of zeros, packed a thousand times smaller."""
    out = io.BytesIO()
    plain = zipfile.ZipFile(io.BytesIO(_saved({"conv_in.weight": torch.zeros(1 << 25)})))
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    return out.getvalue()


def _old_form_that_lies(rng: random.Random) -> bytes:
    """The form before archives, whose storages have the size that they claim."""
    content = _saved({"a": torch.zeros(1000)}, _use_new_zipfile_serialization=False)
    for value in (b"M\xe8\x03", struct.pack("<q", 1000)):
        large = b"\x8a\x05" + (40 << 30).to_bytes(5, "little") if value[:1] == b"M" else None
        content = content.replace(value, large or struct.pack("<q", 40 << 30))
    return content


def hostile_pickle(number: int, seed: int, mark: str) -> tuple[str, bytes]:
    """The kind and the content of a ``.pth`` file.

    Args:
        number: of the case.
        seed: of the series.
        mark: path of a file that exists if code of the file ran.
    """
    rng = random.Random(f"{seed}-pth-{number}")
    good = _good_state()
    key = rng.choice([name for name, tensor in good.items() if tensor.ndim])
    one = torch.zeros(1)
    kinds: dict[str, Callable[[], bytes]] = {
        "stride_0": lambda: _saved({**good, key: one.expand(10**5, 10**5)}),
        "sparse": lambda: _saved(
            {**good, key: torch.sparse_coo_tensor([[0], [0]], [1.0], (10**5, 10**5))}
        ),
        "sparse_rows": lambda: _saved(
            {**good, key: torch.sparse_csr_tensor([0, 1, 1], [0], [1.0], (2, 10**11))}
        ),
        "deflated": lambda: _deflated(rng),
        "runs": lambda: _saved({"params": Runs(mark)}),
        "runs_raw": lambda: pickle.dumps(Runs(mark)),
        "old_form": lambda: _old_form_that_lies(rng),
        "quantised": lambda: _saved(
            {**good, key: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}
        ),
        "meta": lambda: _saved({**good, key: torch.empty(10**5, 10**6, device="meta")}),
        "complex": lambda: _saved({**good, key: torch.zeros(3, dtype=torch.complex64)}),
        "list": lambda: _saved([one]),
        "number": lambda: _saved(7),
        "window": lambda: _saved({**good, f"a.{WINDOW_KEY}": torch.tensor([float("inf"), 2.0])}),
        "nan": lambda: _saved({**good, key: torch.full_like(good[key], float("nan"))}),
        "tiny_floats": lambda: _saved({**good, key: good[key].to(torch.float8_e4m3fn)}),
        "empty": lambda: b"",
        "nested": lambda: _saved({"model": {"model": {"model": good}}}),
        "spoiled": lambda: mutate(_saved(good), rng),
        "spoiled_old": lambda: mutate(
            _saved(good, _use_new_zipfile_serialization=False), rng
        ),
    }  # fmt: skip
    kind = list(kinds)[number % len(kinds)]
    return kind, kinds[kind]()


def hostile_safetensors(number: int, seed: int) -> tuple[str, bytes]:
    """The kind and the content of a safetensors file."""
    rng = random.Random(f"{seed}-safetensors-{number}")
    good = _good_state()
    about = describe(build("realtime", 2), "realtime").metadata()
    key = rng.choice([name for name, tensor in good.items() if tensor.ndim])

    def with_header(change: Callable[[dict[str, Any]], object]) -> bytes:
        content = save(good, about)
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        change(header)
        packed = json.dumps(header).encode()
        return len(packed).to_bytes(8, "little") + packed + content[8 + size :]

    strange = rng.choice((torch.int64, torch.bool, torch.float8_e4m3fn, torch.complex64))
    kinds: dict[str, Callable[[], bytes]] = {
        "metadata": lambda: save(good, {**about, **rng.choice(WRONG_METADATA)}),
        "variant": lambda: save(good, {**about, "variant": rng.choice(("pro", "x" * 9999, ""))}),
        "window": lambda: save({**good, f"a.{WINDOW_KEY}": torch.tensor([[1e30]])}, about),
        "expansion": lambda: save({**good, "a.expand": torch.zeros(100_000, 1)}, about),
        "alpha": lambda: save({**good, "upsampler_alpha": torch.tensor([[9]])}, about),
        "no_dimensions": lambda: save({**good, "conv_in.weight": torch.tensor(1.0)}, about),
        "empty_tensor": lambda: save({**good, key: torch.zeros(0, 3, 3)}, about),
        "nan": lambda: save({**good, key: torch.full_like(good[key], float("inf"))}, about),
        "type": lambda: save({**good, key: good[key].to(strange)}, about),
        "shape": lambda: with_header(lambda h: h[key].update(shape=[10**9, 10**9])),
        "offsets": lambda: with_header(lambda h: h[key].update(data_offsets=[0, 10**15])),
        "dtype": lambda: with_header(lambda h: h[key].update(dtype=rng.choice(("F4", "X", "F64")))),
        "huge_header": lambda: (1 << rng.choice((40, 63))).to_bytes(8, "little") + b"{}",
        "spoiled": lambda: mutate(save(good, about), rng),
        "spoiled_head": lambda: mutate(save(good, about)[:4000], rng),
    }
    kind = list(kinds)[number % len(kinds)]
    return kind, kinds[kind]()
