"""How much memory a piece of work takes at its peak."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_STATM = Path("/proc/self/statm")
_PERIOD = 0.002


def resident_bytes() -> int | None:
    """What of this process lies in memory; None where the system does not tell."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def cuda_bytes() -> int:
    """What is taken of the current CUDA device, by whichever library; 0 without one."""
    import torch

    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


class PeakMemory:
    """Watch a stretch of work: ``with PeakMemory() as peak: ...``, then ask ``peak.bytes``.

    Pages that the allocator kept from earlier work are in the baseline, so that a process which
    has done much before shows less than a fresh one.

    Args:
        cuda: watch the CUDA device instead of the process.

    Attributes:
        bytes: the highest seen above the start, every 2 ms; None where it cannot be known.
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
        """Look once more and stop."""
        if self._start is not None:
            self._done.set()
            self._watcher.join()
            self._look()

    def _watch(self) -> None:
        while not self._done.wait(_PERIOD):
            self._look()

    def _look(self) -> None:
        now = self._now()
        if now is not None and self._start is not None and self.bytes is not None:
            self.bytes = max(self.bytes, now - self._start)
