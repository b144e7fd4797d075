"""A pool of workers. Ray places, starts and restarts them; lost work is given out again."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paragonsr2.cluster.orders import Recipe, WorkerFacts
from paragonsr2.errors import BackendError, ClusterError, ParagonError
from paragonsr2.upscale.upscaler import EngineFacts
from paragonsr2.version import __version__

#: Seconds without any worker after which somebody is told, and after which the job ends. A machine
#: of a cloud takes minutes to start.
_TELL_AFTER, _GIVE_UP_AFTER = 15.0, 900.0

# Seconds for which a second loss of the same work waits for the news that its machine died. Ray
# declares a machine dead when it has been silent for about 15 seconds.
_VERDICT = 45.0

# Seconds for which the end of a job waits for workers to clean up.
_FAREWELL = 5.0


@dataclass(frozen=True)
class PoolOptions:
    """What a worker takes of its machine.

    Attributes:
        cpus: cores of each worker.
        gpus: GPUs of each worker; 0.5 lets two share one.
        workers: how many; None for as many as the cluster has room for now.
    """

    cpus: float = 1
    gpus: float = 0
    workers: int | None = None


@dataclass(eq=False)
class Unit:
    """A piece of work for one worker.

    Attributes:
        source: file that it belongs to.
        method: of :class:`~paragonsr2.cluster.worker.Worker`.
        arguments: of the method, but for the last one, which says that it is done again.
        losses: workers that were lost while they did it.
        is_wanted: somebody waits for its result.
    """

    source: Path
    method: str
    arguments: tuple[Any, ...]
    losses: int = 0
    is_wanted: bool = True


@dataclass(eq=False)
class _Member:
    """One worker and where it is; ``joined`` counts how often it has been started."""

    handle: Any
    node: str = ""
    joined: int = 0


@dataclass(eq=False)
class _Trial:
    """Work that was lost twice: either it kills workers, or it had bad luck with machines."""

    unit: Unit
    member: _Member
    node: str
    joined: int
    until: float


class Pool:
    """Workers that each hold an engine.

    Args:
        ray: the module, connected.
        recipe: how workers open their engine.
        options: what they take.
        model: content of the model's file, if its path is not shared.
        say: tells the user that the job waits.

    Raises:
        ClusterError: no machine has room for a worker, or a worker cannot serve.
        ParagonError: what the workers say, for example that the model cannot be used.
    """

    def __init__(
        self,
        ray: Any,
        recipe: Recipe,
        options: PoolOptions = PoolOptions(),
        model: bytes | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        from paragonsr2.cluster.worker import GROUPS, Worker

        self._ray, self._say, self._options = ray, say, options
        self.size = options.workers or _room(ray, options)
        remote: Any = ray.remote(
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            max_restarts=-1,
            max_task_retries=0,
            concurrency_groups=GROUPS,
            scheduling_strategy="SPREAD",
        )(Worker)
        self._joining: dict[Any, tuple[_Member, Path | None]] = {}
        self._probe: tuple[Path | None, str] = (None, "")
        self._running: dict[Any, tuple[Unit, _Member]] = {}
        self._asking: dict[Any, Unit] = {}
        self._idle: deque[_Member] = deque()
        self._again: deque[Unit] = deque()
        self._trials: list[_Trial] = []
        self._shares: dict[Unit, float] = {}
        self._first: WorkerFacts | None = None
        self._alone_since = time.monotonic()
        self._told = False
        content = None if model is None else ray.put(model)
        self._members = [_Member(remote.remote(recipe, content)) for _ in range(self.size)]
        for member in self._members:
            self._join(member)
        while self._first is None:
            self.wait(1.0)

    @property
    def facts(self) -> WorkerFacts:
        """What the workers are; all are alike."""
        if self._first is None:
            raise ClusterError("no worker has joined yet")
        return self._first

    @property
    def engine(self) -> EngineFacts:
        """The engine of the workers."""
        return self.facts.engine

    @property
    def is_idle(self) -> bool:
        """Whether a worker waits for work, and no lost work waits for one."""
        return bool(self._idle) and not self._again

    def require_sight(self, probe: Path, token: str) -> None:
        """Make sure that every worker, and each that joins later, sees a file.

        Args:
            probe: the file, by an absolute path; it stays as long as there is work.
            token: what is in it.

        Raises:
            ClusterError: a worker does not see it.
        """
        self._probe = probe, token
        while self._idle:
            self._join(self._idle.popleft())
        while not self._idle:
            self.wait(1.0)

    def put(self, content: bytes) -> Any:
        """A reference to bytes in the object store, for the arguments of units."""
        return self._ray.put(content)

    @property
    def idle_worker(self) -> object:
        """The worker that gets the next work, to recognise it by."""
        return self._idle[0]

    def submit(self, unit: Unit) -> None:
        """Give work to :attr:`idle_worker`."""
        member = self._idle.popleft()
        call = getattr(member.handle, unit.method)
        self._running[call.remote(*unit.arguments, unit.losses > 0)] = unit, member

    def abandon(self) -> None:
        """Forget all work. Workers finish what they are at, and nobody learns of it."""
        self._again.clear()
        self._trials.clear()
        for unit, _ in self._running.values():
            unit.is_wanted = False

    def share(self, unit: Unit) -> float:
        """How far a unit was when it was last asked, which this does again."""
        if unit not in self._asking.values():
            for running, member in self._running.values():
                if running is unit:
                    self._asking[member.handle.progress.remote()] = unit
        return self._shares.get(unit, 0.0)

    def wait(self, seconds: float) -> list[tuple[Unit, Any]]:
        """Wait until something happens, at most for some time.

        Returns:
            Units that ended, each with what its method returned, or with the error that ended it.

        Raises:
            ClusterError: there has been no worker for a long time, or a worker differs.
        """
        while self._again and self._idle:
            self.submit(self._again.popleft())
        references = [*self._running, *self._joining, *self._asking]
        if not references:
            time.sleep(seconds)
        else:
            # Wake at the first, then take all that are there.
            self._ray.wait(references, num_returns=1, timeout=seconds)
            references, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        ended: list[tuple[Unit, Any]] = []
        for reference in references:
            if reference in self._joining:
                self._joined(reference)
            elif reference in self._asking:
                self._note_share(reference)
            elif (result := self._ended(reference)) is not None:
                ended.append(result)
        ended += self._judge()
        self._look_for_workers()
        return ended

    def close(self) -> None:
        """End all workers; those that have no work clean up first."""
        leaving = [member.handle.leave.remote() for member in self._idle]
        if leaving:
            self._ray.wait(leaving, num_returns=len(leaving), timeout=_FAREWELL)
        for member in self._members:
            self._ray.kill(member.handle)

    def _join(self, member: _Member) -> None:
        self._joining[member.handle.facts.remote(*self._probe)] = member, self._probe[0]

    def _joined(self, reference: Any) -> None:
        member, probe = self._joining.pop(reference)
        try:
            facts = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise _cannot_start(error) from error
        if isinstance(facts, ParagonError):
            raise facts
        if probe != self._probe[0]:
            self._join(member)
            return
        if self._first is None:
            self._check_version(facts)
            self._first = facts
        elif (difference := _difference(self._first, facts)) is not None:
            raise ClusterError(
                f"workers differ, and so would their results: {difference}; "
                f"give all machines the same engine and packages"
            )
        member.node = facts.node
        member.joined += 1
        self._idle.append(member)

    def _check_version(self, facts: WorkerFacts) -> None:
        if facts.version != __version__:
            raise ClusterError(
                f"the worker on {facts.host} has paragonsr2 {facts.version}, and this is "
                f"{__version__}; install the same on every machine"
            )

    def _note_share(self, reference: Any) -> None:
        unit = self._asking.pop(reference)
        try:
            share = float(self._ray.get(reference))
        except self._ray.exceptions.RayError:
            return  # the worker was lost, which its work tells
        if any(running is unit for running, _ in self._running.values()):
            self._shares[unit] = share

    def _ended(self, reference: Any) -> tuple[Unit, Any] | None:
        """The result of a unit; None if its worker was lost, or nobody waits for it."""
        unit, member = self._running.pop(reference)
        self._shares.pop(unit, None)
        errors = self._ray.exceptions
        try:
            result = self._ray.get(reference)
        except errors.RayTaskError as error:
            reason = str(error).strip().splitlines()[-1]
            result = BackendError(f"the worker failed: {reason[:200]}")
        except errors.RayError:
            self._lost(unit, member)
            return None
        self._idle.append(member)
        return (unit, result) if unit.is_wanted else None

    def _lost(self, unit: Unit, member: _Member) -> None:
        self._join(member)
        unit.losses += 1
        if not unit.is_wanted:
            return
        if unit.losses == 1:
            self._again.append(unit)
        else:
            until = time.monotonic() + _VERDICT
            self._trials.append(_Trial(unit, member, member.node, member.joined, until))

    def _judge(self) -> list[tuple[Unit, Any]]:
        """Give work that was lost with its machine out again, and end what kills workers."""
        if not self._trials:
            return []
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        ended: list[tuple[Unit, Any]] = []
        for trial in list(self._trials):
            came_back = trial.member.joined > trial.joined and trial.member.node == trial.node
            if trial.node not in alive:
                self._again.append(trial.unit)
            elif came_back or time.monotonic() > trial.until:
                message = f"{trial.unit.losses} workers died of it; try it alone, without --ray"
                ended.append((trial.unit, BackendError(message)))
            else:
                continue
            self._trials.remove(trial)
        return ended

    def _look_for_workers(self) -> None:
        """Tell the user if there is no worker, and give up in the end."""
        now = time.monotonic()
        if self._idle or self._running:
            self._alone_since, self._told = now, False
        alone = now - self._alone_since
        if alone > _GIVE_UP_AFTER:
            raise ClusterError(
                f"the cluster has had no worker for {alone / 60:.0f} minutes; see ray status for "
                f"its room and /tmp/ray for its logs, then run the same command again to go on"
            )
        if alone > _TELL_AFTER and not self._told:
            self._told = True
            self._say(f"waiting for room in the cluster: {_wanted(self._options)} for each worker")


def _room(ray: Any, options: PoolOptions) -> int:
    """How many workers the machines of the cluster have room for."""
    room = 0
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        has: dict[str, float] = node["Resources"]
        shares = [(has.get("CPU", 0), options.cpus), (has.get("GPU", 0), options.gpus)]
        fits = [math.floor(there / wanted + 1e-6) for there, wanted in shares if wanted]
        room += min(fits, default=1)
    if not room:
        raise ClusterError(
            f"no machine of the cluster has {_wanted(options)} for a worker; lower --ray-cpus or "
            f"--ray-gpus, or ask a cluster that grows for some: --ray-workers"
        )
    return room


def _wanted(options: PoolOptions) -> str:
    gpus = f" and {options.gpus:g} GPU" if options.gpus else ""
    return f"{options.cpus:g} CPU{gpus}"


def _difference(one: WorkerFacts, other: WorkerFacts) -> str | None:
    """What distinguishes a worker from another in a way that results show."""
    tile = one.engine.tile if one.engine.automatic_tile else other.engine.tile
    pairs = (
        (one.version, other.version),
        (one.engine, replace(other.engine, tile=tile, model=one.engine.model)),
        (one.temporal, other.temporal),
    )
    for a, b in pairs:
        if a != b:
            what = [text.engine if isinstance(text, EngineFacts) else text for text in (a, b)]
            if what[0] == what[1]:
                return f"{one.host} and {other.host} have different model files"
            return f"{one.host} has {what[0]}, and {other.host} {what[1]}"
    return None


def _cannot_start(error: Exception) -> ClusterError:
    text = str(error)
    if "ModuleNotFoundError" in text or "No module named" in text:
        return ClusterError(
            f"the workers cannot import paragonsr2 or what it needs; install "
            f'"paragonsr2[cluster]=={__version__}" on every machine'
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ClusterError(f"a worker does not start: {lines[-1][:200] if lines else 'no reason'}")
