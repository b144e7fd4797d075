"""TensorRT engines as a backend; ``paragonsr2 engine`` builds them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.errors import BackendError, WeightsError
from paragonsr2.tensorrt.engine_files import (
    EngineDescription,
    Profile,
    collecting_logger,
    find_gpu,
    load_tensorrt,
    read_description,
    require_usable,
)
from paragonsr2.weights.metadata import Precision, read_facts


class TensorRtBackend:
    """An engine, for pictures up to the size it was built for.

    Smaller pictures than the engine's smallest are padded by repeating the last row and column,
    and the result is cropped. Within the network's reach of those two borders it differs a little
    from what the network gives without padding.

    Args:
        description: the description stored beside the engine.
        execute: runs the engine on ``(1, 3, H, W)`` within its sizes.
        free_memory: bytes that are free on the GPU.
        name: engine, device and precision, for people.

    Raises:
        WeightsError: the description's metadata is damaged.
    """

    def __init__(
        self,
        description: EngineDescription,
        execute: Callable[[FloatNCHW], FloatNCHW],
        free_memory: Callable[[], int],
        name: str,
    ) -> None:
        needs = read_facts(description.metadata, description.model).needs
        width = 2 if description.identity.precision == "fp16" else 4
        self.name = name
        self.scale = description.scale
        self.profile = description.identity.profile
        self.max_side = min(self.profile.largest.height, self.profile.largest.width)
        self.halo, self.multiple_of = needs.halo, needs.multiple_of
        self.bytes_per_pixel = width * needs.floats_per_pixel
        self._execute, self._free_memory = execute, free_memory

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(1, 3, H, W)``, any H and W from 1 to the engine's largest.

        Raises:
            BackendError: the picture is larger, or TensorRT failed.
        """
        height, width = x.shape[-2:]
        out = self._execute(pad_to_profile(x, self.profile))
        return out[:, :, : height * self.scale, : width * self.scale]

    def free_memory(self) -> int:
        """Bytes that are free on the GPU."""
        return self._free_memory()


def pad_to_profile(x: FloatNCHW, profile: Profile) -> FloatNCHW:
    """Bring ``(1, 3, H, W)`` to the smallest size of ``profile`` by repeating its far edges.

    Raises:
        BackendError: the picture is larger than the largest size.
    """
    height, width = x.shape[-2:]
    most, least = profile.largest, profile.smallest
    if height > most.height or width > most.width:
        raise BackendError(
            f"the engine takes at most {most}, not {width}x{height}; "
            f"lower --tile, or build it with a larger --max"
        )
    below, right = max(least.height - height, 0), max(least.width - width, 0)
    if not below and not right:
        return x
    return np.pad(x, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")


def open_engine(
    path: Path, *, device: str = "auto", precision: Precision = "auto"
) -> TensorRtBackend:
    """Load an engine that fits this machine.

    Args:
        path: ``*.engine``, with its description beside it.
        device: ``auto``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, or the precision that the engine must have.

    Raises:
        MissingExtraError: TensorRT or PyTorch is not installed.
        WeightsError: the engine or its description is missing or damaged.
        BackendError: the engine is stale or of another precision, or there is no such GPU.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    description = read_description(path)
    built = description.identity
    if precision not in ("auto", built.precision):
        raise BackendError(
            f"{path.name} is {built.precision}; drop --precision, or build it as {precision}"
        )
    trt = load_tensorrt()
    device_name, gpu = find_gpu(device)
    require_usable(path, content, description, tensorrt=str(trt.__version__), gpu=gpu)

    import torch

    stream = torch.cuda.Stream(torch.device(device_name))
    execute = EngineExecution(
        trt,
        content,
        description,
        torch.device(device_name),
        stream,
        lambda: torch.cuda.stream(stream),
    )

    def free_memory() -> int:
        return int(torch.cuda.mem_get_info(device_name)[0])

    name = f"tensorrt {device_name} {built.precision}"
    return TensorRtBackend(description, execute, free_memory, name)


class EngineExecution:
    """A loaded engine that runs in PyTorch's memory. Threads take turns.

    Args:
        trt: the tensorrt module.
        content: the engine file.
        description: the description stored beside it.
        device: a ``torch.device`` for the tensors.
        stream: a CUDA stream on it; not the default one, on which TensorRT synchronises.
        on_stream: makes device and stream the current ones while its context is open.

    Raises:
        BackendError: TensorRT cannot load the engine, or there is no memory to run it.
    """

    def __init__(
        self,
        trt: Any,
        content: bytes,
        description: EngineDescription,
        device: Any,
        stream: Any,
        on_stream: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        import torch

        self.input, self.output = description.input, description.output
        self.device, self.stream, self.on_stream = device, stream, on_stream
        self._running = threading.Lock()
        types = {trt.DataType.FLOAT: torch.float32, trt.DataType.HALF: torch.float16}
        with on_stream():
            # Each of these must outlive the next: logger, runtime, engine, context.
            self.logger = collecting_logger(trt)
            self.runtime = trt.Runtime(self.logger)
            self.engine = self.runtime.deserialize_cuda_engine(content)
            if self.engine is None:
                raise BackendError(
                    f"TensorRT cannot load this engine of {description.model}; rebuild it"
                    f"{self.logger.reason()}"
                )
            self.input_dtype = types[self.engine.get_tensor_dtype(self.input)]
            self.output_dtype = types[self.engine.get_tensor_dtype(self.output)]
            self.context = self.engine.create_execution_context()
        if self.context is None:
            raise BackendError(
                f"the GPU has too little memory for an engine of up to "
                f"{description.identity.profile.largest}; build it with a smaller --max"
                f"{self.logger.reason()}"
            )

    def __call__(self, x: FloatNCHW) -> FloatNCHW:
        """Run on ``(1, 3, H, W)`` within the engine's sizes.

        Raises:
            BackendError: TensorRT failed.
        """
        import torch

        with self._running, torch.inference_mode(), self.on_stream():
            given = torch.from_numpy(x).to(self.device, self.input_dtype).contiguous()
            if not self.context.set_input_shape(self.input, tuple(given.shape)):
                raise BackendError(f"TensorRT refuses the size {tuple(given.shape)}; lower --tile")
            shape = tuple(self.context.get_tensor_shape(self.output))
            result = torch.empty(shape, dtype=self.output_dtype, device=self.device)
            self.context.set_tensor_address(self.input, given.data_ptr())
            self.context.set_tensor_address(self.output, result.data_ptr())
            if not self.context.execute_async_v3(self.stream.cuda_stream):
                raise BackendError(
                    f"TensorRT failed to run; try a smaller --tile{self.logger.reason()}"
                )
            # Both tensors must live until the engine has finished with them.
            self.stream.synchronize()
            return result.float().cpu().numpy()
