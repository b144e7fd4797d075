"""Several engines that hold one model, such as one on each GPU."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue

from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.upscale.backends import Backend, BoundedBackend, NarrowBackend


class TeamBackend:
    """Engines behind one queue: each call goes to one that is free, or waits for it.

    Threads may share a team; as many are served at the same time as it has engines.

    Args:
        members: engines with the same model, at least one.

    Attributes:
        engines: how many there are.
    """

    def __init__(self, members: Sequence[Backend]) -> None:
        self._members, first = tuple(members), members[0]
        self.engines = len(members)
        self.name = " + ".join(dict.fromkeys(member.name for member in members))
        self.scale, self.halo, self.multiple_of = first.scale, first.halo, first.multiple_of
        self.bytes_per_pixel = max(member.bytes_per_pixel for member in members)
        self._free: SimpleQueue[Backend] = SimpleQueue()
        for member in members:
            self._free.put(member)

    def run(self, x: FloatNCHW) -> FloatNCHW:
        """Enlarge ``(1, 3, H, W)``."""
        member = self._free.get()
        try:
            return member.run(x)
        finally:
            self._free.put(member)

    def in_fp32(self) -> Backend | None:
        """See :class:`~paragonsr2.upscale.backends.NarrowBackend`; one engine is enough for it."""
        first = self._members[0]
        return first.in_fp32() if isinstance(first, NarrowBackend) else None

    def divided(self, parts: int) -> TeamBackend:  # noqa: ARG002 - it has a queue
        """Itself: any number of threads may share it."""
        return self

    def free_memory(self) -> int:
        """Bytes that are free in the memory of the engine that has least."""
        return min(member.free_memory() for member in self._members)


class BoundedTeamBackend(TeamBackend):
    """A team of engines whose input has a largest size.

    Attributes:
        max_side: longest side of its input, in pixels.
    """

    def __init__(self, members: Sequence[Backend]) -> None:
        super().__init__(members)
        self.max_side = min(one.max_side for one in members if isinstance(one, BoundedBackend))


def team_of(members: Sequence[Backend]) -> Backend:
    """One backend for all engines; a single one needs no team."""
    if len(members) == 1:
        return members[0]
    bounded = any(isinstance(member, BoundedBackend) for member in members)
    return BoundedTeamBackend(members) if bounded else TeamBackend(members)


def engines_of(backend: Backend) -> int:
    """How many calls the backend serves at the same time."""
    return backend.engines if isinstance(backend, TeamBackend) else 1
