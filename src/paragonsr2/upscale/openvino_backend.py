"""OpenVINO as a backend: Intel processors, integrated GPUs and NPUs."""

from __future__ import annotations

import importlib.util
import threading
from functools import cache
from typing import Any, cast

import numpy as np

from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.errors import BackendError, MissingExtraError, WeightsError
from paragonsr2.upscale.backends import OnnxBackend
from paragonsr2.upscale.resources import available_memory, cores
from paragonsr2.weights.metadata import Precision

_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


class OpenVinoBackend:
    """An ONNX model in OpenVINO.

    Args:
        model: a serialised one-file ONNX model.
        device: ``cpu``; ``auto``, which takes a GPU if OpenVINO finds one; or an OpenVINO
            device such as ``gpu``, ``gpu.1`` or ``npu``.
        precision: ``fp32`` computes in float32; ``fp16`` and ``bf16`` let the device compute in
            float16 and bfloat16; ``int8`` is for a model that rounds to 8 bits, and lets the device
            compute the rest of it as ``auto`` would; ``auto`` is fp16 on a GPU, and on the CPU bf16
            if it has instructions for it, else fp32.
        threads: 0 = one per core.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        WeightsError: OpenVINO cannot read the model.
        BackendError: there is no such device, or it cannot run the model.
    """

    def __init__(
        self,
        model: bytes,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        threads: int = 0,
        trusted: bool = False,
    ) -> None:
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise MissingExtraError("the OpenVINO backend", "openvino") from error
        # The model's metadata has one reader, whichever engine runs the model.
        about = OnnxBackend(model, device="cpu", threads=1, trusted=trusted)
        self.model, self.threads = model, threads
        self.scale, self.halo, self.multiple_of = about.scale, about.halo, about.multiple_of
        self.bytes_per_pixel = about.bytes_per_pixel
        self.half = about.half
        core = cast(Any, openvino).Core()
        self.device = _device(device, list(core.available_devices))
        on_cpu = self.device == "CPU"
        able = "BF16" in core.get_property(self.device, "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not able:
            raise BackendError(
                f"OpenVINO's {self.device} has no instructions for bfloat16; drop --precision bf16"
            )
        usual: Precision = "fp16" if not on_cpu else "bf16" if able else "fp32"
        if precision == "auto":
            precision = usual
        self.precision: Precision = precision
        settings: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[usual if precision == "int8" else precision],
        }
        if on_cpu and threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            network = core.read_model(model)
        except RuntimeError as error:
            raise WeightsError(_line("OpenVINO cannot read the model", error)) from error
        try:
            self._compiled = core.compile_model(network, self.device, settings)
        except RuntimeError as error:
            raise BackendError(_line(f"OpenVINO cannot run on {self.device}", error)) from error
        self._of_thread = threading.local()
        self.name = f"openvino {self.device} {precision}"

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(1, 3, H, W)``.

        Raises:
            BackendError: OpenVINO failed.
        """
        # A request that is busy refuses a second call, so each thread has its own.
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._compiled.create_infer_request()
        try:
            result = request.infer([x.astype(np.float16) if self.half else x])[0]
        except RuntimeError as error:
            raise BackendError(_line("OpenVINO failed; try a smaller --tile", error)) from error
        # The next call overwrites OpenVINO's output.
        return np.array(result, dtype=np.float32)

    def divided(self, parts: int) -> OpenVinoBackend | None:
        """See :class:`~paragonsr2.upscale.backends.DivisibleBackend`."""
        if self.device != "CPU":
            return None
        return OpenVinoBackend(
            self.model,
            device="cpu",
            precision=self.precision,
            threads=max(1, cores() // parts),
            trusted=True,
        )

    def in_fp32(self) -> OpenVinoBackend | None:
        """Open the same model in float32 on the same device; None if it is float32 already."""
        if self.precision == "fp32":
            return None
        return OpenVinoBackend(
            self.model,
            device=self.device,
            precision="fp32",
            threads=self.threads,
            trusted=True,
        )

    def free_memory(self) -> int:
        """Main memory, which integrated GPUs share."""
        return available_memory()


@cache
def computes_bfloat16() -> bool:
    """Whether OpenVINO is installed and this CPU has instructions for bfloat16."""
    if importlib.util.find_spec("openvino") is None:
        return False
    import openvino

    core = cast(Any, openvino).Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _device(asked: str, available: list[str]) -> str:
    """OpenVINO's name for a device.

    Raises:
        BackendError: OpenVINO does not find it.
    """
    wanted = asked.upper()
    if wanted == "AUTO":
        return next((name for name in available if name.startswith("GPU")), "CPU")
    if wanted not in available:
        there = ", ".join(name.lower() for name in available)
        raise BackendError(f"OpenVINO finds no device '{asked}'; choose from: {there}")
    return wanted


def _line(what: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return f"{what}: {reason[:160]}"
