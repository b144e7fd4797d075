"""What a training run needs from the machine: precision, memory, signals."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from paragonsr2.errors import TrainingError
from paragonsr2.training.config import RunConfig

EMULATED = "warning: this CPU only emulates bfloat16; run.precision=fp32 is faster on it"


def build_accelerator(run: RunConfig, log: Callable[[str], None]) -> Accelerator:
    """Accelerate's view of the device, in the configured precision.

    Raises:
        TrainingError: there is no such device, or it lacks the precision.
    """
    precision = mixed_precision(run)
    # An earlier run in the same process may have used another precision.
    AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]
    accelerator = Accelerator(cpu=run.device == "cpu", mixed_precision=precision)
    on_cpu = accelerator.device.type == "cpu"
    if precision == "bf16" and on_cpu and emulates_bfloat16() and accelerator.is_main_process:
        log(EMULATED)
    return accelerator


def mixed_precision(run: RunConfig) -> str:
    """Accelerate's name for the precision, checked against the device.

    Raises:
        TrainingError: there is no such device, or it lacks the precision.
    """
    device, precision = run.device, run.precision
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("run.device is cuda, but there is no CUDA device; use auto")
    gpu = torch.cuda.is_available() and device != "cpu"
    if precision == "fp16" and not gpu:
        raise TrainingError("run.precision fp16 needs a CUDA device; use auto")
    # By the hardware alone: emulation is slower than float32.
    able = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and gpu and not able:
        raise TrainingError("this GPU has no bfloat16; use run.precision=auto, fp16 or fp32")
    if precision == "fastest":
        able = able if gpu else multiplies_bfloat16()
    if precision in ("auto", "fastest"):
        precision = "bf16" if able else "fp32"
    return "no" if precision == "fp32" else precision


def emulates_bfloat16() -> bool:
    """Whether this CPU is known to lack bfloat16 instructions."""
    return bool(_capabilities()) and not multiplies_bfloat16()


def multiplies_bfloat16() -> bool:
    """Whether this CPU is known to have bfloat16 instructions."""
    return any(_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _capabilities() -> dict[str, bool]:
    return dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}


def out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out, of a GPU or of the CPU, whose allocator has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def largest_batch(
    step: Callable[[Tensor, Tensor], object], network: nn.Module, lr: Tensor, hr: Tensor
) -> int:
    """The largest divisor of the batch that one step has memory for; 0 if there is none.

    Args:
        step: trains on LR and HR.
        network: whose gradients take memory between two tries.
        lr: ``(B, 3, h, w)``.
        hr: ``(B, 3, h * scale, w * scale)``.
    """
    whole = len(lr)
    for count in range(whole // 2, 0, -1):
        if whole % count:
            continue
        network.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            step(lr[:count], hr[:count])
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        else:
            return count
    return 0


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
