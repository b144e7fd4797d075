"""Peak memory of a piece of work."""

from __future__ import annotations

import gc
import threading
from types import TracebackType
from typing import Self

import psutil

_PERIOD = 0.002


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def cuda_bytes() -> int | None:
    """Memory in use on the current CUDA device, whoever allocated it.

    None without PyTorch or without a device: nothing else here can ask the driver.
    """
    try:
        import torch
    except ModuleNotFoundError:
        return None
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return total - free


class PeakMemory:
    """Record the peak memory of a block: ``with PeakMemory() as peak: ...``, then ``peak.bytes``.

    Memory that the allocator kept from earlier work belongs to the baseline, so a process that
    has already done much shows less than a fresh one.

    Args:
        cuda: watch the CUDA device instead of the process.

    Attributes:
        bytes: highest value above the baseline, sampled every 2 ms; None before the block is
            entered, and where memory cannot be measured.
    """

    def __init__(self, *, cuda: bool = False) -> None:
        self._now = cuda_bytes if cuda else resident_bytes
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self.bytes: int | None = None

    def __enter__(self) -> Self:
        """Take the baseline and start watching."""
        gc.collect()
        self._start = self._now()
        if self._start is not None:
            self.bytes = 0
            self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take a last sample and stop watching."""
        if self._start is not None:
            self._done.set()
            self._watcher.join()
            self._sample()

    def _watch(self) -> None:
        while not self._done.wait(_PERIOD):
            self._sample()

    def _sample(self) -> None:
        now = self._now()
        if now is not None and self._start is not None and self.bytes is not None:
            self.bytes = max(self.bytes, now - self._start)
