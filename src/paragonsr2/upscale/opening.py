"""Opening a model: each engine has one function that takes what :func:`resolve` has found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from paragonsr2.errors import BackendError, OptionError, UsageError
from paragonsr2.process import without_telemetry
from paragonsr2.tensorrt.backend import open_engine
from paragonsr2.upscale.backends import (
    CPU_PROVIDER,
    Backend,
    ClassicalBackend,
    OnnxBackend,
    TorchBackend,
    load_torch_network,
    providers,
)
from paragonsr2.upscale.openvino_backend import OpenVinoBackend, computes_bfloat16
from paragonsr2.upscale.team import team_of
from paragonsr2.weights.catalogue import ModelFile, entries
from paragonsr2.weights.metadata import BackendName, Precision
from paragonsr2.weights.source import DEFAULT_SCALE, ModelSource

#: What ``auto`` stands for as a precision, for all commands of a machine; ``auto`` if it is unset.
PRECISION_VARIABLE = "PARAGONSR2_PRECISION"


def open_model(
    source: ModelSource,
    *,
    backend: BackendName = "auto",
    device: str = "auto",
    precision: Precision = "auto",
) -> Backend:
    """Open a model in an engine.

    Args:
        source: the model.
        backend: ``auto`` runs ONNX models in ONNX Runtime, or for bf16 and int8 in OpenVINO,
            checkpoints in PyTorch and engine files in TensorRT. Bundled models run in bf16 where
            that is the quickest: on a CPU that computes in it, if OpenVINO is installed.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or what else the engine knows; or several
            with commas between them, each of which gets an engine of its own.
        precision: ``auto``, ``fp32``, ``fp16``, ``bf16`` or ``int8``.

    Raises:
        UsageError: there is no such backend or precision, the model has another scale than was
            asked for, or a classical model was given an engine.
        EnvironmentProblem: the weights cannot be used, or the engine cannot run them here.
    """
    _require_known("backend", backend, get_args(BackendName))
    _require_known("precision", precision, get_args(Precision))
    if source.kernel is not None:
        return _open_classical(source, backend, device, precision)
    if precision == "auto" and (source.is_bundled or source.checkpoint is not None):
        # Other files are of one precision, whatever is usual.
        precision = _usual_precision()
    if backend == "auto":
        backend = _usual_engine(source, device, precision)
    devices = [name.strip() for name in device.split(",")]
    opened = team_of([_ENGINES[backend](source, one, precision) for one in devices])
    if source.scale not in (None, opened.scale):
        raise OptionError(f"{source.name} enlarges x{opened.scale}; drop --scale {source.scale}")
    return opened


def _require_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OptionError(f"there is no {what} '{value}'; choose {', '.join(known)}")


def _usual_precision() -> Precision:
    wanted = os.environ.get(PRECISION_VARIABLE, "auto")
    known: dict[str, Precision] = {value: value for value in get_args(Precision)}
    if wanted not in known:
        raise OptionError(f"{PRECISION_VARIABLE}={wanted}: choose {', '.join(known)}")
    return known[wanted]


def _usual_engine(source: ModelSource, device: str, precision: Precision) -> BackendName:
    if source.graph is not None:
        quick = precision == "auto" and source.is_bundled and _is_quick_in_bfloat16(device)
        return "openvino" if quick or precision in ("bf16", "int8") else "onnxruntime"
    return "torch" if source.checkpoint is not None else "tensorrt"


def _is_quick_in_bfloat16(device: str) -> bool:
    """Whether the work falls to a CPU that is quickest in bfloat16."""
    if device == "auto":
        with without_telemetry():
            import onnxruntime as ort

        first, _ = providers(device, ort.get_available_providers())[0]
        return first == CPU_PROVIDER and computes_bfloat16()
    return device == "cpu" and computes_bfloat16()


def _open_classical(
    source: ModelSource, backend: str, device: str, precision: str
) -> ClassicalBackend:
    for flag, value, fitting in (
        ("backend", backend, ("auto",)),
        ("device", device, ("auto", "cpu")),
        ("precision", precision, ("auto", "fp32")),
    ):
        if value not in fitting:
            raise UsageError(
                f"{source.name} is computed on the CPU in float32, without an engine; "
                f"drop --{flag} {value}"
            )
    alpha = source.alpha if source.kernel == "magic" else None
    return ClassicalBackend(source.scale or DEFAULT_SCALE, alpha)


def _open_onnxruntime(source: ModelSource, device: str, precision: Precision) -> Backend:
    if source.graph is None:
        raise BackendError(_needs_graph(source, "ONNX Runtime"))
    if precision == "bf16":
        raise BackendError("ONNX Runtime has no bf16; take --backend openvino or torch")
    if precision == "int8":
        graph, twin = _int8(source), source.graph
        return OnnxBackend(graph.read(), device=device, fp32=twin.read, trusted=True)
    if precision == "fp16" and source.graph_fp16 is not None:
        graph, twin = source.graph_fp16, source.graph
        return OnnxBackend(graph.read(), device=device, fp32=twin.read, trusted=True)
    trusted = not source.graph.needs_limits
    graph = source.graph.read() if source.is_bundled else source.graph.path
    opened = OnnxBackend(graph, device=device, trusted=trusted)
    stored: Precision = "fp16" if opened.half else "fp32"
    if precision not in ("auto", stored):
        raise BackendError(f"{source.name} is {stored}; drop --precision {precision}")
    return opened


def _open_openvino(source: ModelSource, device: str, precision: Precision) -> Backend:
    if source.graph is None:
        raise BackendError(_needs_graph(source, "OpenVINO"))
    graph = _int8(source) if precision == "int8" else source.graph
    return OpenVinoBackend(
        graph.read(),
        device=device,
        precision=precision,
        trusted=not source.graph.needs_limits,
    )


def _open_torch(source: ModelSource, device: str, precision: Precision) -> Backend:
    if source.checkpoint is None:
        raise BackendError(
            f"PyTorch runs checkpoints, and {source.name} is not one; drop --backend torch"
        )
    if source.checkpoint.sha256:
        source.checkpoint.read()  # checks the hash
    if precision == "int8":
        raise BackendError("PyTorch has no INT8 here; take --backend openvino or onnxruntime")
    trusted = not source.checkpoint.needs_limits
    network = load_torch_network(source.checkpoint.path, trusted=trusted)
    return TorchBackend(network, device=device, precision=precision)


def _open_tensorrt(source: ModelSource, device: str, precision: Precision) -> Backend:
    if source.engine is None:
        graph = source.graph.path.name if source.graph and not source.graph.sha256 else "MODEL.onnx"
        export = "" if graph != "MODEL.onnx" else "paragonsr2 export, then "
        engine = Path(graph).with_suffix(".engine")
        raise BackendError(
            f"TensorRT runs engine files; build one: {export}paragonsr2 engine {graph} "
            f"-o {engine}, and give it as --model {engine}"
        )
    return open_engine(source.engine.path, device=device, precision=precision)


def _int8(source: ModelSource) -> ModelFile:
    """The file of a model that was trained for INT8.

    Raises:
        BackendError: there is none.
    """
    if source.graph_int8 is not None:
        return source.graph_int8
    if not source.is_bundled:
        raise BackendError(f"{source.name} is what it is; drop --precision int8")
    there = [f"{e.model} x{e.scale}" for e in entries() if "onnx_int8" in e.files]
    raise BackendError(
        f"no INT8 form of {source.name} x{source.scale} is bundled; there is one of: "
        + (", ".join(there) or "none")
    )


def _needs_graph(source: ModelSource, engine: str) -> str:
    if source.engine is not None:
        return f"{source.name} runs in TensorRT only; drop --backend"
    return f"{engine} runs ONNX models; make one of {source.name}: paragonsr2 export"


_ENGINES: dict[str, Callable[[ModelSource, str, Precision], Backend]] = {
    "onnxruntime": _open_onnxruntime,
    "torch": _open_torch,
    "openvino": _open_openvino,
    "tensorrt": _open_tensorrt,
}
