"""What ``paragonsr2 benchmark`` times: each model in every engine that might be here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paragonsr2.errors import BackendError
from paragonsr2.measure.latency import Candidate, Run

if TYPE_CHECKING:
    from paragonsr2.upscale.backends import TorchMode
    from paragonsr2.weights.catalogue import Entry
    from paragonsr2.weights.metadata import Precision

_BUILD_AN_ENGINE = (
    "TensorRT runs engines: build one with paragonsr2 engine, then time it with --model FILE.engine"
)


def candidates_of(entries: Sequence[Entry], threads: int) -> list[Candidate]:
    """List every engine and precision for each bundled model, whether installed or not.

    Args:
        entries: bundled models.
        threads: processor threads of the engines.
    """
    return [one for entry in entries for one in _candidates(entry, threads)]


def _candidates(entry: Entry, threads: int) -> list[Candidate]:
    from paragonsr2.upscale.backends import PROVIDERS

    made: list[Candidate] = []

    def add(backend: str, precision: str, start: Callable[[], Run], *, cuda: bool = False) -> None:
        made.append(Candidate(entry.name, backend, precision, entry.scale, start, cuda))

    for device in PROVIDERS:
        name, cuda = f"ONNX Runtime {device}", device == "cuda"
        add(name, "fp32", partial(open_onnx, entry, "onnx", device, threads), cuda=cuda)
        add(name, "fp16", partial(open_onnx, entry, "onnx_fp16", device, threads), cuda=cuda)
    add("OpenVINO cpu", "fp32", partial(open_openvino, entry, "cpu", "fp32", threads))
    add("OpenVINO cpu", "bf16", partial(open_openvino, entry, "cpu", "bf16", threads))
    add("OpenVINO gpu", "fp16", partial(open_openvino, entry, "gpu", "fp16", threads))
    for mode in ("eager", "compiled"):
        add(f"PyTorch cpu {mode}", "fp32", partial(_open_torch, entry, "cpu", "fp32", mode))
    for mode in ("eager", "compiled", "graphs"):
        start = partial(_open_torch, entry, "cuda", "fp16", mode)
        add(f"PyTorch cuda {mode}", "fp16", start, cuda=True)
    add("TensorRT", "fp16", _refuse_tensorrt, cuda=True)
    return made


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


def open_onnx(entry: Entry, kind: Literal["onnx", "onnx_fp16"], device: str, threads: int) -> Run:
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
