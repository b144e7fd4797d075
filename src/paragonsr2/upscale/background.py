"""An iterator that runs in a thread of its own, a bounded number of items ahead."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

from paragonsr2.upscale.pipe import AbandonedError, Pipe

T = TypeVar("T")


def in_background(items: Iterable[T], ahead: int) -> Generator[T]:
    """Iterate ``items`` in a thread, at most ``ahead`` of them before they are asked for.

    Closing the generator, or an exception in who uses it, ends the thread; an exception in
    ``items`` is raised here.

    Args:
        items: what to iterate; closed in the thread, if it is a generator.
        ahead: results that may wait.
    """
    results: Pipe[T] = Pipe(ahead)

    def work() -> None:
        try:
            for item in items:
                results.put(item)
        except AbandonedError:
            pass  # nobody wants the rest
        except BaseException as error:
            results.close(error)
        else:
            results.close()
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield from results
    finally:
        results.abandon()
        thread.join()
