"""Engines that run a network, behind one small protocol."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import numpy as np

from paragonsr2.arrays.kernels import polyphase_taps
from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.arrays.resize import bicubic, magic
from paragonsr2.errors import BackendError, MissingExtraError, WeightsError
from paragonsr2.process import without_telemetry
from paragonsr2.weights.metadata import Precision, read_tile_needs

if TYPE_CHECKING:
    from torch import Tensor

    from paragonsr2.network.generator import ParagonSR2

TorchMode = Literal["eager", "compiled", "graphs"]

CPU_PROVIDER = "CPUExecutionProvider"

#: Execution provider and the package that carries it, by device.
PROVIDERS = {
    "cpu": (CPU_PROVIDER, "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
}
AUTO = ("cuda", "directml", "coreml")


class Backend(Protocol):
    """What the upscaler needs to know of an engine with a model in it.

    Attributes:
        name: engine, device and precision, for people.
        scale: enlargement.
        halo: input pixels around a tile that it must see.
        multiple_of: tiles are read from multiples of this.
        bytes_per_pixel: working memory per input pixel, roughly.
    """

    name: str
    scale: int
    halo: int
    multiple_of: int
    bytes_per_pixel: int

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(1, 3, H, W)``, nominally 0..1; the result is not clipped."""
        ...


@runtime_checkable
class NarrowBackend(Backend, Protocol):
    """A backend that can do in float32 what it does in a narrower format."""

    def in_fp32(self) -> Backend | None:
        """The same model in float32 on the same device; None where it is that already."""
        ...


@runtime_checkable
class BoundedBackend(Backend, Protocol):
    """A backend that was built for pictures of limited size.

    Attributes:
        max_side: no side of its input may be longer, in pixels.
    """

    max_side: int


@runtime_checkable
class DivisibleBackend(Backend, Protocol):
    """A backend of which several can work side by side."""

    def divided(self, parts: int) -> Backend | None:
        """The same model for ``parts`` threads to run at once, each on its part of the cores.

        None where it would only be in its own way.
        """
        ...


class ClassicalBackend:
    """The baselines: MATLAB's bicubic and the Magic Kernel.

    Args:
        scale: 2, 3, 4 or 8.
        alpha: Magic Kernel blend; None for bicubic.

    Raises:
        ScaleError: ``scale`` is not supported.
        OptionError: ``alpha`` is outside 0..1.
    """

    def __init__(self, scale: int, alpha: float | None) -> None:
        polyphase_taps(scale, alpha or 0.0)  # refuses what cannot be
        self.scale, self.alpha = scale, alpha
        self.name = "numpy"
        self.halo, self.multiple_of = 8, 1
        self.bytes_per_pixel = 3 * 8 * 4 * scale**2

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(1, 3, H, W)``."""
        pixels = np.ascontiguousarray(x[0].transpose(1, 2, 0))
        if self.alpha is None:
            result = cast(Any, bicubic(pixels, self.scale))
        else:
            result = magic(pixels, self.scale, self.alpha)
        return result.transpose(2, 0, 1)[None]

    def divided(self, parts: int) -> ClassicalBackend:  # noqa: ARG002 - it uses one core anyway
        """Itself: it keeps nothing between calls."""
        return self


class OnnxBackend:
    """ONNX Runtime with one execution provider; it never falls back to another unsaid.

    Args:
        model: path of a one-file ONNX model, or its bytes.
        device: see :func:`providers`.
        threads: 0 = as many as there are cores.
        fp32: the float32 twin of an fp16 ``model``, for tiles on which fp16 fails.

    Raises:
        WeightsError: no readable model, or one that needs files beside it.
        BackendError: the device is not there, or the model does not enlarge.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        device: str = "auto",
        threads: int = 0,
        fp32: Callable[[], bytes] | None = None,
    ) -> None:
        with without_telemetry():
            import onnxruntime as ort

        label = model.name if isinstance(model, Path) else "model"
        content = read_model(model) if isinstance(model, Path) else model
        refused: list[str] = []
        for provider, settings in providers(device, ort.get_available_providers()):
            short = provider.removesuffix("ExecutionProvider")
            options = ort.SessionOptions()
            options.log_severity_level = 4
            options.intra_op_num_threads = threads
            # Else its threads wait for the next call by spinning, for tens of milliseconds, on
            # cores that others could use: the next stage, or the next engine of a benchmark.
            options.add_session_config_entry("session.force_spinning_stop", "1")
            try:
                session = ort.InferenceSession(content, options, providers=[(provider, settings)])
            except Exception as error:  # ONNX Runtime raises a dozen unrelated types
                reason = " ".join(str(error).split())
                if provider == CPU_PROVIDER:
                    raise WeightsError(
                        f"{label} is no ONNX model that runs here: {reason[:160]}"
                    ) from error
                refused.append(f"{short} did not start: {reason[:80]}")
                continue
            if session.get_providers()[0] == provider:
                break
            refused.append(f"{short} did not start")
        else:
            raise BackendError(f"{'; '.join(refused)}; --device cpu runs everywhere")
        self.session, self.model, self.device, self.fp32 = session, model, device, fp32
        self.on_cpu = provider == CPU_PROVIDER
        self.input = session.get_inputs()[0].name
        self.half = session.get_inputs()[0].type == "tensor(float16)"
        why = f" ({'; '.join(refused)})" if refused else ""
        self.name = f"onnxruntime {short} {'fp16' if self.half else 'fp32'}{why}"
        about = session.get_modelmeta().custom_metadata_map
        try:
            self.scale = int(about["scale"]) if "scale" in about else self._probe_scale(label)
        except ValueError as error:
            raise WeightsError(f"{label}: its metadata is damaged: {error}") from error
        needs = read_tile_needs(about, label)
        self.halo, self.multiple_of = needs.halo, needs.multiple_of
        self.bytes_per_pixel = 4 * needs.floats_per_pixel

    def _probe_scale(self, label: str) -> int:
        side = 32
        height, width = self.run(np.full((1, 3, side, side), 0.5, np.float32)).shape[-2:]
        if height != width or height % side or height < side:
            raise BackendError(f"{label} makes {width}x{height} of {side}x{side}: no enlargement")
        return height // side

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(1, 3, H, W)``."""
        try:
            given = x.astype(np.float16) if self.half else x
            result = cast(FloatNCHW, self.session.run(None, {self.input: given})[0])
            return result.astype(np.float32, copy=False)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            reason = " ".join(str(error).split())
            raise BackendError(
                f"ONNX Runtime failed: {reason[:200]}; try a smaller --tile"
            ) from error

    def divided(self, parts: int) -> OnnxBackend | None:
        """See :class:`DivisibleBackend`; a GPU is used whole by every call."""
        if not self.on_cpu:
            return None
        threads = max(1, cores() // parts)
        return OnnxBackend(self.model, device="cpu", threads=threads, fp32=self.fp32)

    def in_fp32(self) -> OnnxBackend | None:
        """The float32 twin, if one was given."""
        return OnnxBackend(self.fp32(), device=self.device) if self.fp32 else None


def cores() -> int:
    """Processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        return os.cpu_count() or 1


def read_model(path: Path) -> bytes:
    """The bytes of an ONNX file; given as bytes, it cannot reach for files beside it.

    Raises:
        WeightsError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error


def providers(device: str, available: Sequence[str]) -> list[tuple[str, dict[str, object]]]:
    """Execution providers to try, in order, with their settings.

    Args:
        device: ``cpu``, ``cuda[:N]``, ``tensorrt[:N]``, ``directml[:N]``, ``coreml``,
            ``openvino``, or ``auto``: the first of CUDA, DirectML, CoreML and the CPU that
            is there. TensorRT and OpenVINO are taken only when named: they compile for long.
        available: what this build of ONNX Runtime has.

    Raises:
        BackendError: no such device, or its provider is not installed.
    """
    kind, _, index = device.partition(":")
    if index and not index.isdigit():
        raise BackendError(f"'{device}' is no device; write cuda:0")
    if kind == "auto":
        found = [(PROVIDERS[name][0], {}) for name in AUTO if PROVIDERS[name][0] in available]
        return [*found, (CPU_PROVIDER, {})]
    if kind not in PROVIDERS:
        known = ", ".join(PROVIDERS)
        raise BackendError(f"there is no device '{device}'; take auto or one of {known}")
    provider, package = PROVIDERS[kind]
    if provider not in available:
        raise BackendError(f"ONNX Runtime has no {kind} here: pip install {package}")
    return [(provider, {"device_id": int(index)} if index else {})]


class TorchBackend:
    """PyTorch, in the channels-last memory format.

    Args:
        network: any form; it is moved and set to evaluation mode.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` is fp16 on CUDA and fp32 on the CPU.
        mode: ``eager``; ``compiled`` by torch.compile; or ``graphs``, compiled and replayed
            as CUDA graphs, one for each size of tile.

    Raises:
        BackendError: the device is not there.
    """

    def __init__(
        self,
        network: ParagonSR2,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        mode: TorchMode = "eager",
    ) -> None:
        import torch

        from paragonsr2.network.generator import channels_last

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise BackendError("PyTorch sees no CUDA device; --device cpu runs everywhere")
        if precision == "auto":
            precision = "fp16" if device.startswith("cuda") else "fp32"
        self.dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[
            precision
        ]
        self.device = torch.device(device)
        if mode == "graphs" and self.device.type != "cuda":
            raise BackendError("CUDA graphs need a CUDA device; take compiled")
        self.wide = network if self.dtype != torch.float32 else None
        if self.wide is not None:
            network = copy.deepcopy(network)
        self.network = channels_last(network.eval().to(self.device, self.dtype))
        self.forward: Callable[[Tensor], Tensor] = self.network
        if mode != "eager":
            graphs = "reduce-overhead" if mode == "graphs" else "default"
            compiled = torch.compile(self.network, mode=graphs, dynamic=mode == "compiled")
            self.forward = cast("Callable[[Tensor], Tensor]", compiled)
        self.name = f"torch {device} {precision}" + (f" {mode}" if mode != "eager" else "")
        self.scale = network.scale
        self.halo, self.multiple_of = network.tile_halo, network.tile_multiple
        self.bytes_per_pixel = 4 * network.floats_per_pixel

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(1, 3, H, W)``."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(x).to(self.device, self.dtype)
            result = self.forward(batch.contiguous(memory_format=torch.channels_last))
            return result.float().cpu().numpy()

    def in_fp32(self) -> TorchBackend | None:
        """The same network in float32, on the same device."""
        if self.wide is None:
            return None
        return TorchBackend(self.wide, device=str(self.device), precision="fp32")


def run_finite(backend: Backend, x: FloatNCHW) -> FloatNCHW:
    """Enlarge ``(1, 3, H, W)``; where the result holds NaN or Inf, once more in float32.

    Raises:
        BackendError: it does so in float32 too.
    """
    result = backend.run(x)
    if _is_finite(result):
        return result
    wide = backend.in_fp32() if isinstance(backend, NarrowBackend) else None
    if wide is not None:
        result = wide.run(x)
        if _is_finite(result):
            return result
    raise BackendError(
        f"{backend.name} gave NaN or Inf"
        + (", in float32 too: the weights or the input are damaged" if wide else "")
    )


def _is_finite(x: FloatNCHW) -> bool:
    # A sum in double precision is finite only where every term is.
    return math.isfinite(float(x.sum(dtype=np.float64)))


def load_torch_network(path: Path) -> ParagonSR2:
    """The deployed form of a checkpoint.

    Raises:
        MissingExtraError: PyTorch is not installed.
        WeightsError: the checkpoint cannot be used.
    """
    try:
        from paragonsr2.weights.store import load_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name}", "torch") from error
    network = load_checkpoint(path).network
    return network if network.is_collapsed else network.collapse()
