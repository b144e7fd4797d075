"""Engines that run a network, behind one small protocol."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import numpy as np

from paragonsr2.errors import BackendError, MissingExtraError, WeightsError
from paragonsr2.pixels.arrays import FloatNCHW
from paragonsr2.pixels.kernels import polyphase_taps
from paragonsr2.pixels.resize import bicubic, magic

if TYPE_CHECKING:
    from paragonsr2.network.generator import ParagonSR2

BackendName = Literal["auto", "onnxruntime", "torch", "tensorrt"]
Precision = Literal["auto", "fp32", "fp16", "bf16"]

# What a foreign ONNX file does not say about itself.
UNKNOWN_HALO = 32
UNKNOWN_FLOATS = 1024


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
class BoundedBackend(Backend, Protocol):
    """A backend that was built for pictures of limited size.

    Attributes:
        max_side: no side of its input may be longer, in pixels.
    """

    max_side: int


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


class OnnxBackend:
    """ONNX Runtime on the CPU, or on CUDA where its provider is installed.

    Args:
        model: path of a one-file ONNX model, or its bytes.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: 0 = as many as there are cores.

    Raises:
        WeightsError: no readable model, or one that needs files beside it.
        BackendError: the device is not there, or the model does not enlarge.
    """

    def __init__(self, model: Path | bytes, *, device: str = "auto", threads: int = 0) -> None:
        import onnxruntime as ort

        label = model.name if isinstance(model, Path) else "model"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        provider, provider_options = _provider(device, ort.get_available_providers())
        content = read_model(model) if isinstance(model, Path) else model
        try:
            self.session = ort.InferenceSession(
                content, options, providers=[(provider, provider_options)]
            )
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            reason = " ".join(str(error).split())
            raise WeightsError(
                f"{label} is no ONNX model that runs here: {reason[:160]}"
            ) from error
        if self.session.get_providers()[0] != provider:
            raise BackendError(f"{provider} did not start; --device cpu runs everywhere")
        self.input = self.session.get_inputs()[0].name
        self.half = self.session.get_inputs()[0].type == "tensor(float16)"
        kind = "fp16" if self.half else "fp32"
        self.name = f"onnxruntime {provider.removesuffix('ExecutionProvider')} {kind}"
        about = self.session.get_modelmeta().custom_metadata_map
        try:
            self.scale = int(about["scale"]) if "scale" in about else self._probe_scale(label)
            self.halo = int(about.get("tile_halo", UNKNOWN_HALO))
            self.multiple_of = int(about.get("tile_multiple", 1))
            self.bytes_per_pixel = 4 * int(about.get("floats_per_pixel", UNKNOWN_FLOATS))
        except ValueError as error:
            raise WeightsError(f"{label}: its metadata is damaged: {error}") from error

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


def read_model(path: Path) -> bytes:
    """The bytes of an ONNX file; given as bytes, it cannot reach for files beside it.

    Raises:
        WeightsError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error


def _provider(device: str, available: list[str]) -> tuple[str, dict[str, object]]:
    kind, _, index = device.partition(":")
    has_cuda = "CUDAExecutionProvider" in available
    if kind == "cuda" and not has_cuda:
        raise BackendError("ONNX Runtime has no CUDA here: pip install onnxruntime-gpu")
    if kind == "cuda" or (kind == "auto" and has_cuda):
        return "CUDAExecutionProvider", {"device_id": int(index or 0)}
    return "CPUExecutionProvider", {}


class TorchBackend:
    """PyTorch, eager.

    Args:
        network: any form; it is moved and set to evaluation mode.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` is fp16 on CUDA and fp32 on the CPU.

    Raises:
        BackendError: the device is not there.
    """

    def __init__(
        self, network: ParagonSR2, *, device: str = "auto", precision: Precision = "auto"
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
        self.network = channels_last(network.eval().to(self.device, self.dtype))
        self.name = f"torch {device} {precision}"
        self.scale = network.scale
        self.halo, self.multiple_of = network.tile_halo, network.tile_multiple
        self.bytes_per_pixel = 4 * network.floats_per_pixel

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(1, 3, H, W)``."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(x).to(self.device, self.dtype)
            return (
                self.network(batch.contiguous(memory_format=torch.channels_last))
                .float()
                .cpu()
                .numpy()
            )


def require_finite(result: FloatNCHW, backend: Backend) -> FloatNCHW:
    """Pass ``result`` on unless it holds NaN or Inf.

    Raises:
        BackendError: it does.
    """
    if not math.isfinite(float(result.sum(dtype=np.float64))):
        raise BackendError(f"{backend.name} gave NaN or Inf; try --precision fp32")
    return result


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
