"""TensorRT engines from ONNX files: planning, building, and reading back what was built.

Two generations of TensorRT are supported. TensorRT 10 takes an FP32 graph with an FP16 flag, or a
strongly typed graph, which it builds as written. TensorRT 11 has strong typing only: the graph
states the precision. The ``tensorrt`` module is passed in as ``trt``.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from paragonsr2.errors import ExportError, OutputError, UsageError
from paragonsr2.export.graph_reading import Graph
from paragonsr2.files import sha256, write_atomic
from paragonsr2.tensorrt.engine_files import (
    EngineDescription,
    EngineIdentity,
    Gpu,
    InputSize,
    Profile,
    collecting_logger,
    read_description,
    require_current,
    require_usable,
    write_description,
)
from paragonsr2.weights.metadata import GraphPrecision

SUFFIX = ".engine"
TIMING_CACHE = "tensorrt.timing"
OLDEST_MAJOR = 10
#: The first generation without weak typing.
STRONG_MAJOR = 11

# Layers that only move or convert data: FP16 in them proves nothing.
_MOVING = frozenset({"Reformat", "NoOp", "Constant", "Cast", "Shuffle"})
_FP16 = re.compile(r"\bhalf\b|(?<!b)fp?16")
_FP32 = re.compile(r"\bfloat\b|fp?32")


@dataclass(frozen=True)
class Typing:
    """The builder's settings for a precision.

    Attributes:
        strong: create the network with the strongly typed flag.
        fp16: set the builder's FP16 flag.
        tf32: allow TensorFloat-32, which rounds the factors of float32 products to 10 bits.
    """

    strong: bool
    fp16: bool
    tf32: bool


def plan_typing(major: int, graph: Graph, precision: GraphPrecision) -> Typing:
    """The settings with which TensorRT ``major`` builds ``graph`` in ``precision``.

    Raises:
        ExportError: this TensorRT cannot build that precision from that graph.
    """
    if major < OLDEST_MAJOR:
        raise ExportError(
            f'TensorRT {major} is too old; update it: pip install "tensorrt>={OLDEST_MAJOR}"'
        )
    if precision == "fp32":
        if graph.precision == "fp16":
            raise ExportError(
                f"{graph.name} is a float16 graph and cannot be built as fp32; "
                f"give the *_fp32.onnx file, or --precision fp16"
            )
        return Typing(strong=False, fp16=False, tf32=False)
    if graph.precision == "fp16":
        # TensorRT 11 is always strongly typed and deprecates the flag.
        return Typing(strong=major < STRONG_MAJOR, fp16=False, tf32=True)
    if major >= STRONG_MAJOR:
        raise ExportError(
            f"TensorRT {major} takes the precision from the graph, and {graph.name} is float32; "
            f"give {_fp16_name(graph.name)}, the *_fp16.onnx file of the same export"
        )
    return Typing(strong=False, fp16=True, tf32=True)


def _fp16_name(name: str) -> str:
    stem = name.removesuffix(".onnx").removesuffix("_fp32")
    return f"{stem}_fp16.onnx"


@dataclass(frozen=True)
class Order:
    """An engine to build.

    Attributes:
        model: the ONNX file.
        output: the engine file.
        profile: input sizes.
        precision: of the engine.
        workspace: scratch memory that a layer may use, in bytes.
        timing_cache: file of measured kernel speeds, kept between builds.
    """

    model: Path
    output: Path
    profile: Profile
    precision: GraphPrecision
    workspace: int
    timing_cache: Path


def engine_path(output: Path, model: Path, key: str = "") -> Path:
    """Where to write an engine: ``output`` itself, or a file of its own in that folder.

    Args:
        output: an ``.engine`` file, or an existing folder.
        model: the ONNX file.
        key: of the engine's identity, so that a folder can hold several engines of one model.

    Raises:
        UsageError: ``output`` is neither.
    """
    if output.is_dir():
        return output / ("_".join(filter(None, (model.stem, key[:16]))) + SUFFIX)
    if output.suffix != SUFFIX:
        raise UsageError(f"{output}: give a file that ends in {SUFFIX}, or an existing folder")
    return output


def workspace_bytes(gibibytes: float) -> int:
    """Convert scratch memory from GiB to bytes.

    Raises:
        UsageError: it is not positive, or more than any GPU has.
    """
    if not 0 < gibibytes <= 1024:
        raise UsageError(f"--workspace {gibibytes}: give a positive number of GiB, such as 4")
    return int(gibibytes * 2**30)


def trtexec_line(major: int, graph: Graph, order: Order) -> str:
    """The shell command with which TensorRT's own tool builds the same engine.

    Raises:
        ExportError: this TensorRT cannot build the engine.
    """
    typing = plan_typing(major, graph, order.precision)
    shapes = zip(("min", "opt", "max"), order.profile.sizes, strict=True)
    words = [
        "trtexec",
        f"--onnx={order.model}",
        f"--saveEngine={order.output}",
        *(f"--{name}Shapes={graph.input}:1x3x{size.height}x{size.width}" for name, size in shapes),
        # Without a unit trtexec counts in MiB.
        f"--memPoolSize=workspace:{max(order.workspace >> 20, 1)}",
        f"--timingCacheFile={order.timing_cache}",
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]
    if typing.strong:
        words.append("--stronglyTyped")
    if typing.fp16:
        words.append("--fp16")
    if not typing.tf32:
        words.append("--noTF32")
    return shlex.join(words)


def major_version(trt: Any) -> int:
    """The major version of TensorRT, such as 10."""
    return int(str(trt.__version__).partition(".")[0])


def identify(
    trt: Any, gpu: Gpu, graph: Graph, profile: Profile, precision: GraphPrecision
) -> EngineIdentity:
    """The identity of an engine of ``graph`` that is built on this machine."""
    return EngineIdentity(graph.sha256, str(trt.__version__), gpu, profile, precision)


def existing_engine(order: Order, identity: EngineIdentity) -> EngineDescription | None:
    """The description of the ordered engine, if it exists already.

    Returns:
        None if there is no file.

    Raises:
        BackendError: the file was built for something else.
        WeightsError: its description is missing or damaged.
        OutputError: the file cannot be read.
    """
    try:
        content = order.output.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"cannot read {order.output}: {error.strerror or error}") from error
    description = read_description(order.output)
    require_current(order.output, description.identity, identity)
    require_usable(order.output, content, description, tensorrt=identity.tensorrt, gpu=identity.gpu)
    return description


def build_engine(trt: Any, gpu: Gpu, graph: Graph, order: Order) -> EngineDescription:
    """Build an engine, check it by reading it back, then write it and its description.

    This takes minutes. The timing cache is read before and written after.

    Args:
        trt: the tensorrt module.
        gpu: the GPU to build on.
        graph: of ``order.model``.
        order: what to build.

    Raises:
        ExportError: TensorRT cannot build the engine, or built something else.
        OutputError: a file cannot be written.
    """
    typing = plan_typing(major_version(trt), graph, order.precision)
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if typing.strong else 0
    network = builder.create_network(flags)
    _parse(trt, network, logger, graph)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace)
    # Without this the inspector lists layers by name only, without their precision.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if typing.fp16:
        config.set_flag(trt.BuilderFlag.FP16)
    if not typing.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    profile.set_shape(graph.input, *(shape_of(size) for size in order.profile.sizes))
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(
            f"TensorRT refuses the sizes {order.profile} for {graph.name}{logger.reason()}"
        )
    _load_timing_cache(config, order.timing_cache)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise ExportError(f"TensorRT cannot build {graph.name}{logger.reason()}")
    content = bytes(serialized)
    _save_timing_cache(config, order.timing_cache)
    built = _read_back(trt, logger, content, graph, order)
    description = EngineDescription(
        identity=identify(trt, gpu, graph, order.profile, order.precision),
        engine_sha256=sha256(content),
        model=graph.name,
        scale=built.scale,
        input=graph.input,
        output=graph.output,
        types=built.types,
        layers=built.layers,
        metadata=graph.metadata,
    )
    write_atomic(order.output, content)
    write_description(order.output, description)
    return description


def shape_of(size: InputSize) -> tuple[int, int, int, int]:
    """``(1, 3, H, W)``."""
    return 1, 3, size.height, size.width


def _parse(trt: Any, network: Any, logger: Any, graph: Graph) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse(graph.content):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    first = " ".join(f"{errors[0].desc()} (node '{errors[0].node_name()}')".split())
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    raise ExportError(f"TensorRT cannot read {graph.name}: {first[:240]}{more}")


def _load_timing_cache(config: Any, path: Path) -> None:
    try:
        known = path.read_bytes()
    except FileNotFoundError:
        known = b""
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
    # A cache from another GPU or TensorRT is useless but harmless: start an empty one.
    for content in (known, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def _save_timing_cache(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is not None:
        write_atomic(path, bytes(cache.serialize()))


@dataclass(frozen=True)
class _Built:
    scale: int
    types: dict[str, str]
    layers: dict[str, int]


def _read_back(trt: Any, logger: Any, content: bytes, graph: Graph, order: Order) -> _Built:
    engine = trt.Runtime(logger).deserialize_cuda_engine(content)
    if engine is None:
        raise ExportError(f"TensorRT cannot load the engine it built{logger.reason()}")
    types = _tensor_types(trt, engine)
    if set(types) != {graph.input, graph.output}:
        raise ExportError(f"the engine has tensors {sorted(types)}, not those of {graph.name}")
    context = engine.create_execution_context()
    if context is None:
        raise ExportError(
            f"no memory to run the engine at {order.profile.largest}; lower --max{logger.reason()}"
        )
    # For dynamic sizes the inspector reports formats only once a context has a size.
    context.set_input_shape(graph.input, shape_of(order.profile.best))
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    layers = count_precisions(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    if order.precision == "fp16" and not layers.get("fp16"):
        found = ", ".join(f"{number} {kind}" for kind, number in layers.items()) or "none"
        raise ExportError(
            f"FP16 was requested, but no layer uses it (layers: {found}), so nothing was written; "
            f"if this GPU has no FP16, use --precision fp32"
        )
    height, width = tuple(context.get_tensor_shape(graph.output))[-2:]
    return _Built(_scale(order.profile.best, InputSize(height, width), graph), types, layers)


def _tensor_types(trt: Any, engine: Any) -> dict[str, str]:
    known = {trt.DataType.FLOAT: "fp32", trt.DataType.HALF: "fp16"}
    types: dict[str, str] = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = engine.get_tensor_dtype(name)
        if dtype not in known:
            raise ExportError(f"the engine's '{name}' is {dtype}; it must be float32 or float16")
        types[name] = known[dtype]
    return types


def _scale(small: InputSize, large: InputSize, graph: Graph) -> int:
    scale = large.height // small.height
    if scale < 1 or large != InputSize(small.height * scale, small.width * scale):
        raise ExportError(f"the engine turns {small} into {large}, so it does not enlarge")
    said = graph.metadata.get("scale", str(scale))
    if said != str(scale):
        raise ExportError(f"{graph.name} states x{said}, but its engine enlarges x{scale}")
    return scale


def count_precisions(information: str) -> dict[str, int]:
    """Count the computing layers of an engine by precision.

    Args:
        information: the engine inspector's JSON, with detailed verbosity.

    Returns:
        Number of layers for each of ``fp16``, ``fp32`` and ``other`` that occurs; ``other`` are
        layers that compute in integers or do not state their precision.
    """
    layers: list[Any] = []
    with contextlib.suppress(ValueError, AttributeError):
        layers = json.loads(information).get("Layers", [])
    found = Counter(
        _layer_precision(cast(dict[str, Any], layer)) if isinstance(layer, dict) else "other"
        for layer in layers
        if not isinstance(layer, dict) or layer.get("LayerType") not in _MOVING
    )
    return dict(sorted(found.items()))


def _layer_precision(layer: dict[str, Any]) -> str:
    """The precision of a layer: of its weights, or else its kernel, or else its output."""
    weights = layer.get("Weights")
    outputs = layer.get("Outputs")
    evidence: list[object] = [
        weights.get("Type") if isinstance(weights, dict) else None,
        layer.get("TacticName"),
        *(_formats(outputs) if isinstance(outputs, list) else []),
    ]
    for text in evidence:
        lowered = str(text).lower()
        if _FP16.search(lowered):
            return "fp16"
        if _FP32.search(lowered):
            return "fp32"
    return "other"


def _formats(outputs: list[Any]) -> list[object]:
    return [
        tensor.get(key)
        for tensor in outputs
        if isinstance(tensor, dict)
        for key in ("Format/Datatype", "DataType", "Datatype", "Format")
    ]
