"""What ``paragonsr2 benchmark`` times: each model in every engine that might be here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paragonsr2.errors import BackendError, UsageError
from paragonsr2.measure.latency import Candidate, Run
from paragonsr2.upscale.backends import AUTO, PROVIDERS, TorchMode
from paragonsr2.weights.metadata import BackendName, Precision

if TYPE_CHECKING:
    from paragonsr2.weights.catalogue import Entry

_Graph = Literal["onnx", "onnx_fp16"]

#: What is timed in each engine: its graphs, devices, number formats and modes.
_GRAPHS: Mapping[Precision, _Graph] = {"fp32": "onnx", "fp16": "onnx_fp16"}
_IN_OPENVINO: Sequence[tuple[str, Precision]] = (("cpu", "fp32"), ("cpu", "bf16"), ("gpu", "fp16"))
_IN_PYTORCH: Sequence[tuple[str, Precision, Sequence[TorchMode]]] = (
    ("cpu", "fp32", ("eager", "compiled")),
    ("cuda", "fp16", ("eager", "compiled", "graphs")),
)

_BUILD_AN_ENGINE = (
    "TensorRT runs engines: build one with paragonsr2 engine, then time it with --model FILE.engine"
)


def candidates_of(
    entries: Sequence[Entry],
    threads: int,
    backend: BackendName = "auto",
    device: str = "auto",
) -> list[Candidate]:
    """List every engine and precision for each bundled model, whether installed or not.

    Args:
        entries: bundled models.
        threads: processor threads of the engines.
        backend: only this engine; ``auto`` for all.
        device: only this device, such as ``cpu``; ``auto`` for all.

    Raises:
        UsageError: the engine does not run on this device.
    """
    chosen = [
        one
        for entry in entries
        for engine, there, one in _candidates(entry, threads)
        if backend in ("auto", engine) and device in ("auto", there)
    ]
    if not chosen:
        raise UsageError(
            f"there is nothing to time with --backend {backend} --device {device}; the devices "
            f"are cpu, {', '.join(AUTO)}, and gpu with openvino"
        )
    return chosen


def _candidates(entry: Entry, threads: int) -> Iterator[tuple[BackendName, str, Candidate]]:
    """Candidates for one model, each after the names of its engine and its device."""

    def candidate(shown: str, device: str, precision: str, start: Callable[[], Run]) -> Candidate:
        cuda = device == "cuda"
        return Candidate(entry.name, shown, precision, entry.scale, start, cuda)

    for device in PROVIDERS:
        for precision, kind in _GRAPHS.items():
            start = partial(open_onnx, entry, kind, device, threads)
            one = candidate(f"ONNX Runtime {device}", device, precision, start)
            yield "onnxruntime", device, one
    for device, precision in _IN_OPENVINO:
        start = partial(open_openvino, entry, device, precision, threads)
        yield "openvino", device, candidate(f"OpenVINO {device}", device, precision, start)
    for device, precision, modes in _IN_PYTORCH:
        for mode in modes:
            start = partial(_open_torch, entry, device, precision, mode)
            one = candidate(f"PyTorch {device} {mode}", device, precision, start)
            yield "torch", device, one
    yield "tensorrt", "cuda", candidate("TensorRT", "cuda", "fp16", _refuse_tensorrt)


def engine_candidate(path: Path) -> Candidate:
    """A TensorRT engine file, to be timed as it was built.

    Raises:
        WeightsError: the file beside it that describes it is missing or damaged.
    """
    from paragonsr2.tensorrt.engine_files import read_description

    about = read_description(path)

    def start() -> Run:
        from paragonsr2.tensorrt.backend import open_engine

        return open_engine(path).run

    return Candidate(path.name, "TensorRT", about.identity.precision, about.scale, start, cuda=True)


def baseline_candidates() -> list[Candidate]:
    """The classical baselines at x2: bicubic and the Magic Kernel."""
    from paragonsr2.upscale.backends import ClassicalBackend

    return [
        Candidate(name, "numpy", "fp32", 2, lambda alpha=alpha: ClassicalBackend(2, alpha).run)
        for name, alpha in (("bicubic", None), ("magic", 0.0))
    ]


def use_threads(threads: int) -> None:
    """Set PyTorch's number of threads, if PyTorch is installed."""
    try:
        import torch
    except ModuleNotFoundError:
        return
    torch.set_num_threads(threads)


def open_onnx(entry: Entry, kind: _Graph, device: str, threads: int) -> Run:
    """Open a bundled model in ONNX Runtime.

    Args:
        entry: the model.
        kind: the float32 or the float16 graph.
        device: a key of :data:`paragonsr2.upscale.backends.PROVIDERS`.
        threads: processor threads.

    Raises:
        BackendError: the graph is not bundled, or ONNX Runtime cannot run it on ``device``.
    """
    from paragonsr2.upscale.backends import OnnxBackend
    from paragonsr2.weights.catalogue import bundled_bytes

    if kind not in entry.files:
        raise BackendError("no fp16 graph is bundled for this model; make one: paragonsr2 export")
    content = bundled_bytes(entry, kind)
    return OnnxBackend(content, device=device, threads=threads, trusted=True).run


def open_openvino(entry: Entry, device: str, precision: Precision, threads: int) -> Run:
    """Open a bundled model in OpenVINO.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BackendError: OpenVINO cannot run it on ``device``.
    """
    from paragonsr2.upscale.openvino_backend import OpenVinoBackend
    from paragonsr2.weights.catalogue import bundled_bytes

    content = bundled_bytes(entry, "onnx")
    return OpenVinoBackend(
        content, device=device, precision=precision, threads=threads, trusted=True
    ).run


def _open_torch(entry: Entry, device: str, precision: Precision, mode: TorchMode) -> Run:
    from paragonsr2.measure.speed import noise_inputs
    from paragonsr2.upscale.backends import TorchBackend, load_torch_network
    from paragonsr2.weights.catalogue import bundled_path

    network = load_torch_network(bundled_path(entry, "safetensors"))
    # The result is copied to the CPU, so a call returns only after the device has finished.
    backend = TorchBackend(network, device=device, precision=precision, mode=mode)
    try:
        for x in noise_inputs(96, 128):
            backend.run(x)
    except Exception as error:  # compilers raise many unrelated types
        reason = " ".join(str(error).split())[:160]
        raise BackendError(f"PyTorch {mode} failed: {reason}") from error
    return _synchronised(backend.run)


def _synchronised(run: Run) -> Run:
    """Make ``run`` wait for the CUDA device: no work may be left over for the next call."""
    import torch

    if not torch.cuda.is_available():
        return run

    def waiting(x: Any) -> object:
        result = run(x)
        torch.cuda.synchronize()
        return result

    return waiting


def _refuse_tensorrt() -> Run:
    raise BackendError(_BUILD_AN_ENGINE)
