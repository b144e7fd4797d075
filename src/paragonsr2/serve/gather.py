"""Tiles of one size that wait at the same time go through the engine together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.errors import ParagonError
from paragonsr2.upscale.backends import Backend, BatchBackend, NarrowBackend
from paragonsr2.upscale.team import engines_of
from paragonsr2.upscale.tile_choice import TILE_BUDGET

#: Tiles in one call of an engine that gives the same bits in batches.
_EXACT_TOGETHER = 8


@dataclass(eq=False)
class _Call:
    """A thread's tile, ``(1, 3, H, W)``, and the place of its result."""

    tile: FloatNCHW
    result: Future[FloatNCHW] = field(default_factory=Future[FloatNCHW])


class GatheringBackend:
    """A backend that many threads may call, and that calls another one with what they bring.

    An engine runs one call at a time. The thread that gets it next takes along the tiles of the
    same size that other threads brought in the meantime, so nobody ever waits for company.

    Args:
        backend: the engine.
        together: tiles in one call; None for 8 where the engine gives the same bits in batches, and
            1 elsewhere.
        observe: called with the number of tiles of each call.
    """

    def __init__(
        self, backend: Backend, together: int | None, observe: Callable[[int], None]
    ) -> None:
        self.backend, self._observe = backend, observe
        self.name, self.scale = backend.name, backend.scale
        self.halo, self.multiple_of = backend.halo, backend.multiple_of
        self.bytes_per_pixel = backend.bytes_per_pixel
        exact = isinstance(backend, BatchBackend) and backend.exact_in_batches
        self._most = together or (_EXACT_TOGETHER if exact else 1)
        self._waiting: list[_Call] = []
        self._list, self._engine = threading.Lock(), threading.Semaphore(engines_of(backend))

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(1, 3, H, W)``."""
        call = _Call(x)
        with self._list:
            self._waiting.append(call)
        with self._engine:
            self._compute(self._with_company(call))
        return call.result.result()

    def in_fp32(self) -> Backend | None:
        """See :class:`~paragonsr2.upscale.backends.NarrowBackend`."""
        return self.backend.in_fp32() if isinstance(self.backend, NarrowBackend) else None

    def free_memory(self) -> int:
        """See :class:`~paragonsr2.upscale.backends.Backend`."""
        return self.backend.free_memory()

    def _with_company(self, call: _Call) -> list[_Call]:
        """The call and others of its size, as many as fit into the memory planned for one tile.

        None at all if another thread has taken the call along.
        """
        height, width = call.tile.shape[2:]
        fitting = TILE_BUDGET // (self.bytes_per_pixel * height * width)
        most = max(1, min(self._most, fitting))
        with self._list:
            if call not in self._waiting:
                return []
            others = [
                one
                for one in self._waiting
                if one is not call and one.tile.shape == call.tile.shape
            ]
            taken = [call, *others[: most - 1]]
            self._waiting = [one for one in self._waiting if one not in taken]
        return taken

    def _compute(self, calls: list[_Call]) -> None:
        if calls:
            self._observe(len(calls))
        if len(calls) > 1:
            try:
                results = self.backend.run(np.concatenate([call.tile for call in calls]))
            except ParagonError:
                pass  # alone, each finds out whether it was to blame
            else:
                for number, call in enumerate(calls):
                    call.result.set_result(results[number : number + 1])
                return
        for call in calls:
            try:
                call.result.set_result(self.backend.run(call.tile))
            except Exception as error:  # whatever it is, it belongs to the thread that brought it
                call.result.set_exception(error)
