"""Cores and memory that this process may use."""

from __future__ import annotations

import os
import sys

import psutil


def cores() -> int:
    """Number of processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        return os.cpu_count() or 1


def available_memory() -> int:
    """Bytes of main memory that programs can still get.

    That is more than what is free: the system gives up its file cache when a program needs the
    memory.
    """
    return int(psutil.virtual_memory().available)


def gpu_memory(index: int = 0) -> int | None:
    """Bytes of memory that are free on a CUDA device.

    Args:
        index: of the device.

    Returns:
        None where nothing can tell: PyTorch is not loaded or sees no CUDA device.
    """
    torch = sys.modules.get("torch")
    if torch is None or index >= torch.cuda.device_count():
        return None
    return int(torch.cuda.mem_get_info(index)[0])
