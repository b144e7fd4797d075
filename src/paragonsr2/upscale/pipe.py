"""A bounded queue between two threads that either of them can end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class AbandonedError(Exception):
    """Nobody takes what is put in any more."""


class Pipe(Generic[T]):
    """One thread puts, another iterates; memory is bounded by ``size`` items.

    Args:
        size: items that may wait.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._abandoned = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Wait for room and add ``item``.

        Raises:
            AbandonedError: the taking side has gone.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._size or self._abandoned)
            if self._abandoned:
                raise AbandonedError
            self._items.append(item)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """Say that nothing more will come; ``error`` is raised on the taking side in its turn."""
        with self._changed:
            self._closed, self._error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        """Say that nothing more will be taken."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()

    def ready(self) -> list[T]:
        """Take what waits now, without waiting."""
        with self._changed:
            items = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return items

    def __iter__(self) -> Iterator[T]:
        """Take items until the other side closes, and raise its error, if it had one."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed or self._abandoned)
                if self._items:
                    item = self._items.popleft()
                    self._changed.notify_all()
                elif self._error is not None:
                    raise self._error
                else:
                    return
            yield item
