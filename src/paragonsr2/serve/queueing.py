"""The queue of pictures: so many are worked on, so many wait, the others are refused."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.types import Receive

from paragonsr2.errors import RefusedError, StoppedError
from paragonsr2.serve.limits import Limits

T = TypeVar("T")

#: Weight of the newest request in the running mean of their seconds.
_NEWEST = 0.1


class OutOfTimeError(StoppedError):
    """The work took longer than the service allows."""


class Stop:
    """Tells a running piece of work to end, by request or because its time is over.

    Args:
        seconds: from now, after which it is over.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._end = seconds, time.monotonic() + seconds
        self._wanted = threading.Event()

    def set(self) -> None:
        """End the work at its next :meth:`check`."""
        self._wanted.set()

    def check(self) -> None:
        """Go on, or not.

        Raises:
            StoppedError: :meth:`set` was called.
            OutOfTimeError: the time is over.
        """
        if self._wanted.is_set():
            raise StoppedError("cancelled")
        if time.monotonic() > self._end:
            raise OutOfTimeError(
                f"this took longer than the {self._seconds:.0f} s that the service allows; "
                "send something smaller, or choose a faster model"
            )


class PictureQueue:
    """A bounded queue before a pool of threads. All methods belong to the event loop's thread.

    Attributes:
        running_or_waiting: requests that were admitted and have not ended.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="picture")
        self._mean_seconds = 1.0
        self.running_or_waiting = 0

    def require_room(self) -> None:
        """Refuse a request before its body is read.

        Raises:
            RefusedError: the queue is full (429).
        """
        if self.running_or_waiting >= self._limits.workers + self._limits.waiting:
            raise self.refusal()

    def refusal(self) -> RefusedError:
        """The refusal of a request for which there is no room, with the time to wait."""
        expected = self._mean_seconds * self.running_or_waiting / self._limits.workers
        wait = min(max(1, math.ceil(expected)), math.ceil(self._limits.seconds))
        return RefusedError(429, "the queue is full; try again later", max(wait, 1))

    async def run(self, receive: Receive, work: Callable[[Stop], T]) -> T:
        """Run ``work`` in a thread when its turn comes.

        Args:
            receive: of the request, whose body has been read. If the client leaves, the work ends
                at its next check.
            work: called with what tells it to end.

        Raises:
            RefusedError: the queue is full (429).
            StoppedError: the client left, or the time is over.
        """
        self.require_room()
        stop = Stop(self._limits.seconds)
        loop = asyncio.get_running_loop()

        def timed() -> T:
            stop.check()
            started = time.monotonic()
            try:
                return work(stop)
            finally:
                loop.call_soon_threadsafe(self._learn, time.monotonic() - started)

        self.running_or_waiting += 1
        task = self._pool.submit(timed)
        task.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
        result = asyncio.wrap_future(task)
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                stop.set()
                if not task.cancel():
                    await asyncio.wait({result})
                raise StoppedError("the client left")
            return result.result()
        finally:
            stop.set()
            gone.cancel()

    def close(self) -> None:
        """End the threads; what they are at is finished first."""
        self._pool.shutdown(cancel_futures=True)

    def _leave(self) -> None:
        self.running_or_waiting -= 1

    def _learn(self, seconds: float) -> None:
        self._mean_seconds += _NEWEST * (seconds - self._mean_seconds)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
