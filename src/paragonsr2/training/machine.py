"""What a training run asks of the machine: its precision, its memory, its signals."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

import torch

from paragonsr2.errors import TrainingError
from paragonsr2.training.config import RunConfig

IMITATED = "warning: this CPU only imitates bfloat16; run.precision=fp32 is quicker on it"


def mixed_precision(run: RunConfig) -> str:
    """Accelerate's word for the precision, checked against the device.

    Raises:
        TrainingError: the device is not there, or cannot do it.
    """
    told, precision = run.device, run.precision
    if told == "cuda" and not torch.cuda.is_available():
        raise TrainingError("run.device is cuda, but there is no CUDA device; take auto")
    gpu = torch.cuda.is_available() and told != "cpu"
    if precision == "fp16" and not gpu:
        raise TrainingError("run.precision fp16 needs a CUDA device; take auto")
    # By the hardware alone: what is imitated is slower than float32.
    able = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and gpu and not able:
        raise TrainingError("this GPU has no bfloat16; take run.precision=auto, fp16 or fp32")
    if precision == "fastest":
        able = able if gpu else multiplies_bfloat16()
    if precision in ("auto", "fastest"):
        precision = "bf16" if able else "fp32"
    return "no" if precision == "fp32" else precision


def imitates_bfloat16() -> bool:
    """Whether this CPU surely has no instructions for bfloat16."""
    return bool(_capabilities()) and not multiplies_bfloat16()


def multiplies_bfloat16() -> bool:
    """Whether this CPU surely has instructions for bfloat16."""
    return any(_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _capabilities() -> dict[str, bool]:
    return dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}


def out_of_memory(error: RuntimeError) -> bool:
    """Of a GPU, or of the CPU, whose allocator has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


@contextmanager
def graceful(stop: Callable[[], None]) -> Generator[None]:
    """Turn Ctrl-C and SIGTERM into ``stop()``; a second one ends at once."""

    def handle(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
