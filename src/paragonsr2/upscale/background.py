"""Running an iterator in a thread of its own, a bounded number of items ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_background(items: Iterable[T], ahead: int) -> Generator[T]:
    """Iterate over ``items`` in a thread that is at most ``ahead`` items ahead of the consumer.

    An exception in ``items`` is raised here, in its turn. Closing the generator ends the thread.

    Args:
        items: what to iterate over; a generator is closed in the thread.
        ahead: number of items that may wait.
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[Any]] = deque()
        try:
            while True:
                while len(waiting) < ahead:
                    waiting.append(thread.submit(next, iterator, end))
                item = waiting.popleft().result()
                if item is end:
                    return
                yield item
        finally:
            for future in waiting:
                future.cancel()
            if isinstance(iterator, Generator):
                thread.submit(iterator.close)


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """``map`` in several threads: the results in the order of the items.

    Args:
        work: what to do with an item.
        items: taken as threads become free, a few ahead of the results.
        threads: how many work at the same time; 1 works in the thread of the caller.
    """
    if threads == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
