"""The engines that run a network, behind one small protocol."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import numpy as np

from paragonsr2.arrays.kernels import polyphase_taps
from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.arrays.resize import bicubic, magic
from paragonsr2.errors import BackendError, MissingExtraError, WeightsError
from paragonsr2.process import without_telemetry
from paragonsr2.upscale.resources import available_memory, cores, gpu_memory
from paragonsr2.weights.catalogue import ModelFile
from paragonsr2.weights.graph_check import graph_scale, require_scale
from paragonsr2.weights.metadata import Precision, read_facts

if TYPE_CHECKING:
    from torch import Tensor

    from paragonsr2.network.generator import ParagonSR2

TorchMode = Literal["eager", "compiled", "graphs"]

CPU_PROVIDER = "CPUExecutionProvider"

#: Execution provider and the package that contains it, by device. TensorRT and OpenVINO are
#: engines of their own here; see docs/decisions/0008-one-engine-of-each.md.
PROVIDERS = {
    "cpu": (CPU_PROVIDER, "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime"),
}
AUTO = ("cuda", "directml", "coreml")


class Backend(Protocol):
    """What the upscaler needs to know about an engine with a model in it.

    Threads may share a backend.

    Attributes:
        name: engine, device and precision, for people.
        scale: enlargement.
        halo: input pixels that a tile must see on each side.
        multiple_of: tiles start at multiples of this.
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

    def free_memory(self) -> int:
        """Bytes that are free in the memory that the engine works in."""
        ...


@runtime_checkable
class NarrowBackend(Backend, Protocol):
    """A backend that may compute in a narrower format than float32."""

    def in_fp32(self) -> Backend | None:
        """Open the same model in float32 on the same device; None if it is float32 already."""
        ...


@runtime_checkable
class BoundedBackend(Backend, Protocol):
    """A backend whose input has a largest size.

    Attributes:
        max_side: longest side of its input, in pixels.
    """

    max_side: int


@runtime_checkable
class DivisibleBackend(Backend, Protocol):
    """A backend that can give each thread its own share of the cores."""

    def divided(self, parts: int) -> Backend | None:
        """Open the same model for ``parts`` threads, each using its share of the cores.

        None where that gains nothing.
        """
        ...


@runtime_checkable
class BatchBackend(Backend, Protocol):
    """A backend whose ``run`` also takes ``(B, 3, H, W)``."""

    @property
    def exact_in_batches(self) -> bool:
        """Whether a picture's result has the same bits, whatever is in the batch with it."""
        ...


class ClassicalBackend:
    """The classical baselines: MATLAB's bicubic and the Magic Kernel.

    Args:
        scale: 2, 3, 4 or 8.
        alpha: Magic Kernel blend; None for bicubic.

    Raises:
        ScaleError: ``scale`` is not supported.
        OptionError: ``alpha`` is outside 0..1.
    """

    def __init__(self, scale: int, alpha: float | None) -> None:
        polyphase_taps(scale, alpha or 0.0)  # raises for a bad scale or alpha
        self.scale, self.alpha = scale, alpha
        self.name = "numpy CPU fp32"
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
        """Itself: it has no state."""
        return self

    def free_memory(self) -> int:
        """See :class:`Backend`."""
        return available_memory()


class OnnxBackend:
    """ONNX Runtime with one execution provider.

    If a provider does not start, ``name`` says why and which one runs instead.

    Args:
        model: path of a one-file ONNX model, or its bytes.
        device: see :func:`providers`.
        threads: 0 = one per core.
        fp32: reads the float32 twin of an fp16 or int8 ``model``, for tiles that overflow in it.
        trusted: open the model without the checks and limits of
            :func:`~paragonsr2.weights.graph_check.graph_scale`, which are for files of others.

    Raises:
        WeightsError: the model cannot be read, is not ONNX, needs files beside it, or does what
            it must not.
        BackendError: the device is not available, or the model does not enlarge.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        device: str = "auto",
        threads: int = 0,
        fp32: Callable[[], bytes] | None = None,
        trusted: bool = False,
    ) -> None:
        with without_telemetry():
            import onnxruntime as ort

        label = model.name if isinstance(model, Path) else "model"
        content = ModelFile(model).read() if isinstance(model, Path) else model
        found = None if trusted else graph_scale(content, label)
        refused: list[str] = []
        for provider, settings in providers(device, ort.get_available_providers()):
            short = provider.removesuffix("ExecutionProvider")
            options = ort.SessionOptions()
            options.log_severity_level = 4
            options.intra_op_num_threads = threads
            # Without this its threads spin for tens of milliseconds after each call, on cores
            # that others could use: the next stage, or the next engine of a benchmark.
            options.add_session_config_entry("session.force_spinning_stop", "1")
            try:
                session = ort.InferenceSession(content, options, providers=[(provider, settings)])
            except Exception as error:  # ONNX Runtime raises a dozen unrelated types
                reason = " ".join(str(error).split())
                if provider == CPU_PROVIDER:
                    raise WeightsError(
                        f"{label} is not an ONNX model that ONNX Runtime can run: {reason[:160]}"
                    ) from error
                refused.append(f"{short} did not start: {reason[:80]}")
                continue
            if session.get_providers()[0] == provider:
                break
            refused.append(f"{short} did not start")
        else:
            raise BackendError(f"{'; '.join(refused)}; use --device cpu, which works everywhere")
        self.session, self.model, self.device, self.fp32 = session, model, device, fp32
        self.on_cpu = provider == CPU_PROVIDER
        self.cuda = int(device.partition(":")[2] or 0) if short == "CUDA" else None
        self.input = session.get_inputs()[0].name
        self.half = session.get_inputs()[0].type == "tensor(float16)"
        why = f" ({'; '.join(refused)})" if refused else ""
        metadata = session.get_modelmeta().custom_metadata_map
        rounds = metadata.get("precision") == "int8"
        precision = "fp16" if self.half else "int8" if rounds else "fp32"
        self.name = f"onnxruntime {short} {precision}{why}"
        self.facts = read_facts(metadata, label)
        stated = self.facts.scale
        require_scale(stated, found, label)
        self.scale = stated or found or graph_scale(content, label, trusted=True)
        self.halo, self.multiple_of = self.facts.needs.halo, self.facts.needs.multiple_of
        self.bytes_per_pixel = 4 * self.facts.needs.floats_per_pixel

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(B, 3, H, W)``."""
        try:
            given = x.astype(np.float16) if self.half else x
            result = cast(FloatNCHW, self.session.run(None, {self.input: given})[0])
            return result.astype(np.float32, copy=False)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            reason = " ".join(str(error).split())
            raise BackendError(
                f"ONNX Runtime failed: {reason[:200]}; try a smaller --tile"
            ) from error

    @property
    def exact_in_batches(self) -> bool:
        """See :class:`BatchBackend`; on a GPU the way to compute may depend on the batch."""
        return self.on_cpu

    def free_memory(self) -> int:
        """See :class:`Backend`; main memory where the GPU's is not known."""
        of_gpu = None if self.cuda is None else gpu_memory(self.cuda)
        return available_memory() if of_gpu is None else of_gpu

    def divided(self, parts: int) -> OnnxBackend | None:
        """See :class:`DivisibleBackend`; a GPU is used whole by every call."""
        if not self.on_cpu:
            return None
        threads = max(1, cores() // parts)
        return OnnxBackend(self.model, device="cpu", threads=threads, fp32=self.fp32, trusted=True)

    def in_fp32(self) -> OnnxBackend | None:
        """The float32 twin, if one was given."""
        return OnnxBackend(self.fp32(), device=self.device, trusted=True) if self.fp32 else None


def providers(device: str, available: Sequence[str]) -> list[tuple[str, dict[str, object]]]:
    """List the execution providers to try, in order, with their settings.

    Args:
        device: ``cpu``, ``cuda[:N]``, ``directml[:N]``, ``coreml``, or ``auto``: the first of
            CUDA, DirectML, CoreML and the CPU that is available.
        available: providers in this build of ONNX Runtime.

    Raises:
        BackendError: there is no such device, or its provider is not installed.
    """
    kind, _, index = device.partition(":")
    if index and not index.isdigit():
        raise BackendError(f"'{device}' is not a device; write cuda:0")
    if kind == "auto":
        found = [(PROVIDERS[name][0], {}) for name in AUTO if PROVIDERS[name][0] in available]
        return [*found, (CPU_PROVIDER, {})]
    if kind not in PROVIDERS:
        known = ", ".join(PROVIDERS)
        engine = f", or --backend {kind}" if kind in ("tensorrt", "openvino") else ""
        raise BackendError(f"there is no device '{device}'; choose auto, {known}{engine}")
    provider, package = PROVIDERS[kind]
    if provider not in available:
        raise BackendError(f"this ONNX Runtime has no {kind}; pip install {package}")
    return [(provider, {"device_id": int(index)} if index else {})]


class TorchBackend:
    """PyTorch, in the channels-last memory format.

    Args:
        network: trained or deployed; it is moved and set to evaluation mode.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` is fp16 on CUDA and fp32 on the CPU.
        mode: ``eager``; ``compiled`` by torch.compile; or ``graphs``, compiled and replayed
            as CUDA graphs, one for each size of tile.

    Raises:
        BackendError: the device is not available.
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
            raise BackendError("PyTorch sees no CUDA device; use --device cpu")
        if precision == "auto":
            precision = "fp16" if device.startswith("cuda") else "fp32"
        self.dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[
            precision
        ]
        try:
            self.device = torch.device(device)
        except RuntimeError:
            raise BackendError(f"there is no device '{device}'; use cpu, cuda or cuda:N") from None
        if mode == "graphs" and self.device.type != "cuda":
            raise BackendError("CUDA graphs need a CUDA device; use mode compiled")
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

    def free_memory(self) -> int:
        """See :class:`Backend`."""
        of_gpu = gpu_memory(self.device.index or 0) if self.device.type == "cuda" else None
        return available_memory() if of_gpu is None else of_gpu


class OverflowGuard:
    """Run a backend, and compute again in float32 what overflowed in a narrower format.

    The first overflow opens the float32 twin, which then serves all others. Threads may share
    the guard.

    Args:
        backend: what to run.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._opening = threading.Lock()
        self._opened = False
        self._twin: Backend | None = None

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(1, 3, H, W)``.

        Raises:
            BackendError: the result holds NaN or Inf in float32 too.
        """
        result = self.backend.run(x)
        if _is_finite(result):
            return result
        twin = self._in_fp32()
        if twin is not None:
            result = twin.run(x)
            if _is_finite(result):
                return result
        raise BackendError(
            f"{self.backend.name} gave NaN or Inf"
            + (", in float32 too" if twin else "")
            + "; the weights or the input are damaged"
        )

    def _in_fp32(self) -> Backend | None:
        with self._opening:
            if not self._opened and isinstance(self.backend, NarrowBackend):
                self._twin = self.backend.in_fp32()
            self._opened = True
            return self._twin


def _is_finite(x: FloatNCHW) -> bool:
    # A sum is finite only where every term is; that of large terms may need double precision.
    with np.errstate(over="ignore", invalid="ignore"):
        quick = float(x.sum())
    return math.isfinite(quick) or math.isfinite(float(x.sum(dtype=np.float64)))


def load_torch_network(path: Path, *, trusted: bool = False) -> ParagonSR2:
    """Read a checkpoint and return the deployed network.

    Args:
        path: of the checkpoint.
        trusted: see :func:`paragonsr2.weights.store.load_checkpoint`.

    Raises:
        MissingExtraError: PyTorch is not installed.
        WeightsError: the checkpoint cannot be used.
    """
    try:
        from paragonsr2.weights.store import load_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name}", "torch") from error
    network = load_checkpoint(path, trusted=trusted).network
    return network if network.is_collapsed else network.collapse()
