"""Opening an encoder without lasting effects on the process around it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

# SVT-AV1 reads its log level from the environment when it is opened; 1 reports errors only.
_LOG, _ERRORS_ONLY = "SVT_LOG", "1"


@contextmanager
def opening_encoder() -> Generator[None]:
    """Open an encoder in this block, and it neither prints nor takes real-time priority.

    SVT-AV1 prints its settings to stderr. Where the system permits (it permits root), SVT-AV1
    also makes its own threads and the calling thread real-time threads: nothing else gets a
    processor while one of them computes, and child processes inherit the priority. Afterwards the
    environment and all threads that existed before are as they were.
    """
    level = os.environ.get(_LOG)
    if level is None:
        os.environ[_LOG] = _ERRORS_ONLY
    try:
        with _ordinary_priority():
            yield
    finally:
        if level is None:
            os.environ.pop(_LOG, None)


@contextmanager
def _ordinary_priority() -> Generator[None]:
    """Undo real-time priority taken by the calling thread and by threads started inside."""
    if sys.platform != "linux":
        yield
        return
    caller = threading.get_native_id()
    others = _threads() - {caller}
    already = real_time_threads()
    try:
        yield
    finally:
        for thread in real_time_threads() - already - others:
            with suppress(ProcessLookupError):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def real_time_threads() -> set[int]:
    """Native identifiers of this process's real-time threads; Linux only."""
    found: set[int] = set()
    for thread in _threads():
        with suppress(ProcessLookupError):
            if os.sched_getscheduler(thread) in (os.SCHED_FIFO, os.SCHED_RR):
                found.add(thread)
    return found


def _threads() -> set[int]:
    return {int(thread.name) for thread in Path("/proc/self/task").iterdir()}
