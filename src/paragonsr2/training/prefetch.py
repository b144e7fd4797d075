"""Results computed ahead by threads and returned in order."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def prefetch(make: Callable[[int], T], first: int, workers: int) -> Generator[T]:
    """Yield ``make(first)``, ``make(first + 1)`` and so on; closing it ends the threads.

    Args:
        make: called in worker threads, each with one PyTorch thread.
        first: argument of the first call.
        workers: number of threads; at most twice as many results are computed ahead.
    """
    with ThreadPoolExecutor(workers, "prefetch") as pool:
        _settle(pool, workers)
        ahead: deque[Future[T]] = deque()
        try:
            for index in itertools.count(first):
                ahead.append(pool.submit(make, index))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _settle(pool: ThreadPoolExecutor, workers: int) -> None:
    """Give each worker one PyTorch thread; other threads keep their number."""
    threads, together = torch.get_num_threads(), threading.Barrier(workers)

    def one_thread(_: int) -> None:
        torch.get_num_threads()  # the first call in a thread resets its number
        torch.set_num_threads(1)
        together.wait()

    list(pool.map(one_thread, range(workers)))
    # Each thread has its own number, but new threads inherit the one set last.
    torch.set_num_threads(threads)
