"""Ordinary priority for threads that an encoder would make real-time threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def ordinary_priority() -> Generator[None]:
    """Undo real-time priority that threads of this process take inside.

    Where the system lets it, as it lets root, SVT-AV1 makes its own threads and the one that
    opens it real-time threads. Nothing else gets a processor while such a thread computes, and
    processes started later inherit it.
    """
    if sys.platform != "linux":
        yield
        return
    before = real_time_threads()
    try:
        yield
    finally:
        for thread in real_time_threads() - before:
            with suppress(ProcessLookupError):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def real_time_threads() -> set[int]:
    """Identifiers of this process's threads that no ordinary one may interrupt; Linux only."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            if os.sched_getscheduler(int(thread.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                found.add(int(thread.name))
    return found
