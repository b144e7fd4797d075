"""The files of a job on a cluster: what each gives workers to do, and what becomes of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from paragonsr2.cluster.orders import MadeSegment, SegmentOrder
from paragonsr2.cluster.pool import Pool, Unit
from paragonsr2.errors import BackendError, BusyOutputError, ImageError, OutputError, ParagonError
from paragonsr2.files import atomic_path, write_atomic
from paragonsr2.upscale.job import clip_outcome
from paragonsr2.upscale.pictures import PictureOptions
from paragonsr2.upscale.task import Outcome, Task, TaskProgress, failed, is_newer, skipped
from paragonsr2.upscale.video import VideoJob, VideoOptions, plan_video, video_job

# Segments of a clip that are being made, or wait for an earlier one, for each worker.
_AHEAD = 2

# Bytes of a clip that travel at once.
_PIECE = 1 << 26


class Entry(Protocol):
    """A file of the job.

    Attributes:
        outcome: what became of it, when that is known.
    """

    outcome: Outcome | None

    @property
    def is_spent(self) -> bool:
        """Whether it will give no more work."""
        ...

    def next(self) -> Unit | None:
        """Work that can be done now."""
        ...

    def take(self, unit: Unit, result: Any) -> None:
        """Take the result of a unit: what its method returned, or an error."""
        ...

    def progress(self) -> TaskProgress | None:
        """How far it is; None if there is nothing to tell."""
        ...

    def close(self) -> None:
        """Give up what is held."""
        ...


@dataclass(frozen=True)
class _Absolute:
    """A task by absolute paths, for processes with another working directory."""

    named: Task
    task: Task

    @classmethod
    def of(cls, task: Task) -> _Absolute:
        return cls(task, Task(task.source.absolute(), task.target.absolute()))

    def failed(self, error: ParagonError) -> Outcome:
        return self.outcome(failed(self.task, error))

    def outcome(self, outcome: Outcome) -> Outcome:
        """An outcome of the absolute task, by the names that the user gave."""
        message = outcome.message.replace(str(self.task.source), str(self.named.source))
        message = message.replace(str(self.task.target), str(self.named.target))
        return replace(outcome, source=self.named.source, target=self.named.target, message=message)


class PictureEntry:
    """A picture: one unit of work.

    Args:
        task: the picture.
        pool: of workers.
        options: how it is read and written.
        transfer: send bytes, because paths are not shared.
    """

    def __init__(self, task: Task, pool: Pool, options: PictureOptions, *, transfer: bool) -> None:
        self.outcome: Outcome | None = None
        self._paths, self._pool, self._options = _Absolute.of(task), pool, options
        self._transfer, self._unit = transfer, None
        self._claim: _Claim | None = None
        if not options.overwrite and is_newer(task.target, task.source):
            self.outcome = skipped(task)

    @property
    def is_spent(self) -> bool:
        """See :class:`Entry`."""
        return self.outcome is not None or self._unit is not None

    def next(self) -> Unit | None:
        """See :class:`Entry`."""
        if self.is_spent:
            return None
        task, tile = self._paths.task, self._pool.engine.tile
        if not self._transfer:
            self._unit = Unit(task.source, "enlarge", (task, self._options, tile))
            return self._unit
        try:
            self._claim = _Claim(self._paths.named.target)
            content = self._pool.put(_content(self._paths.named.source))
        except BusyOutputError as error:
            self.outcome = skipped(self._paths.named, error)
        except ParagonError as error:
            self.close()
            self.outcome = self._paths.failed(error)
        else:
            options = self._options
            self._unit = Unit(task.source, "enlarge_bytes", (task, content, options, tile))
        return self._unit

    def take(self, unit: Unit, result: Any) -> None:  # noqa: ARG002
        """See :class:`Entry`."""
        if isinstance(result, ParagonError):
            self.outcome = self._paths.failed(result)
        elif self._claim is None:
            self.outcome = self._paths.outcome(result)
        else:
            outcome, content = result
            self.outcome = self._paths.outcome(outcome)
            if content is not None:
                try:
                    self._claim.write(content)
                except OutputError as error:
                    self.outcome = self._paths.failed(error)
        self.close()

    def progress(self) -> TaskProgress | None:
        """See :class:`Entry`."""
        if self._unit is None:
            return None
        return TaskProgress(self._paths.named, min(self._pool.share(self._unit), 1.0))

    def close(self) -> None:
        """See :class:`Entry`."""
        if self._claim is not None:
            self._claim.give_up()
            self._claim = None


class _Claim:
    """A result that this process will write: other runs leave the file to it."""

    def __init__(self, target: Path) -> None:
        self._file: AbstractContextManager[Path] = atomic_path(target, alone=True)
        self._part: Path | None = self._file.__enter__()
        self._target = target

    def write(self, content: bytes) -> None:
        """Write the result.

        Raises:
            OutputError: it cannot be written.
        """
        part, self._part = self._part, None
        if part is None:
            return
        try:
            part.write_bytes(content)
        except OSError as error:
            self._file.__exit__(type(error), error, error.__traceback__)
        else:
            self._file.__exit__(None, None, None)

    def give_up(self) -> None:
        """Write nothing, if nothing has been written."""
        if self._part is not None:
            self._part = None
            error = OutputError(f"{self._target} was given up")
            with suppress(OutputError):
                self._file.__exit__(type(error), error, None)


class ClipEntry:
    """A clip: a unit of work for each of its segments. Its result is put together here.

    Args:
        task: the clip.
        pool: of workers.
        options: how it is coded, and its limits.
        overwrite: replace a result that is newer than the clip, too.
        transfer: send bytes, because paths are not shared.
        finisher: writes the result while other work goes on.
    """

    def __init__(
        self,
        task: Task,
        pool: Pool,
        options: VideoOptions,
        finisher: Executor,
        *,
        overwrite: bool,
        transfer: bool,
    ) -> None:
        self.outcome: Outcome | None = None
        self._paths, self._pool, self._options = _Absolute.of(task), pool, options
        self._transfer, self._finisher = transfer, finisher
        self._held = ExitStack()
        self._job: VideoJob | None = None
        self._started = time.perf_counter()
        # Segments by number: given to workers, and made but not yet in their place.
        self._making: dict[Unit, SegmentOrder] = {}
        self._made: dict[int, tuple[SegmentOrder, MadeSegment]] = {}
        self._next = self._placed = self._repeated = 0
        self._end: MadeSegment | None = None
        self._finishing: Future[None] | None = None
        self._pieces: tuple[Any, ...] = ()
        if not overwrite and is_newer(task.target, task.source):
            self.outcome = skipped(task)

    @property
    def is_spent(self) -> bool:
        """See :class:`Entry`."""
        return self.outcome is not None or self._end is not None

    def next(self) -> Unit | None:
        """See :class:`Entry`."""
        if self.is_spent or (self._job is None and not self._open()) or self._job is None:
            return None
        open_segments = len(self._making) + len(self._made)
        if open_segments >= _AHEAD * self._pool.size:
            return None
        size, frames = self._options.segment, self._job.plan.clip.frames
        # The number of frames may be an estimate; whether there are more shows at its end.
        if frames and self._next * size >= frames and self._making:
            return None
        order = self._order(self._job, self._next)
        unit = Unit(self._paths.task.source, "segment", (order,))
        self._making[unit] = order
        self._next += 1
        return unit

    def _open(self) -> bool:
        named = self._paths.named
        self._started = time.perf_counter()
        facts = self._pool.facts
        try:
            plan = plan_video(named.source, named.target, facts.engine.scale, self._options)
            self._job = self._held.enter_context(video_job(plan, facts.engine, facts.temporal))
            if self._transfer:
                self._pieces = tuple(self._pool.put(piece) for piece in _pieces(named.source))
        except BusyOutputError as error:
            self._end_as(skipped(named, error))
        except ParagonError as error:
            self._end_as(self._paths.failed(error))
        else:
            self._next = self._placed = self._job.resumed // self._options.segment
        return self.outcome is None

    def _order(self, job: VideoJob, number: int) -> SegmentOrder:
        clip = replace(job.plan.clip, path=self._paths.task.source)
        result = None if self._transfer else job.store.foreign(number).absolute()
        key = f"{self._paths.task.target}\0{self._started}"
        return SegmentOrder(
            key, clip, job.plan.encoding, job.tile, self._options.segment, number, result,
            self._pieces,
        )  # fmt: skip

    def take(self, unit: Unit, result: Any) -> None:
        """See :class:`Entry`."""
        order = self._making.pop(unit, None)
        if order is None or self.outcome is not None or self._finishing is not None:
            return
        if isinstance(result, ParagonError):
            self._end_as(self._paths.failed(result))
            return
        self._made[order.number] = order, result
        try:
            self._place()
        except ParagonError as error:
            self._end_as(self._paths.failed(error))

    def _place(self) -> None:
        """Put segments in their place, in order; finish the clip if that was the last one."""
        while self._job is not None and (found := self._made.pop(self._placed, None)) is not None:
            order, made = found
            if made.frames:
                path = order.result or self._job.store.foreign(order.number)
                if made.content is not None:
                    write_atomic(path, made.content)
                self._job.store.adopt(path)
            self._repeated += made.repeated
            self._placed += 1
            if made.frames < order.size:
                # What is made of the time after the end is empty.
                self._end = made
                self._made.clear()
                self._finishing = self._finisher.submit(self._finish, self._job, made)

    def _finish(self, job: VideoJob, last: MadeSegment) -> None:
        named = self._paths.named
        try:
            result = job.finish(
                last.damage,
                repeated=self._repeated,
                strict=self._options.strict,
                notes=self._pool.facts.unsteady,
            )
            outcome = clip_outcome(named, result, time.perf_counter() - self._started)
        except ParagonError as error:
            outcome = self._paths.failed(error)
        except MemoryError:
            outcome = self._paths.failed(BackendError("not enough memory; use a smaller --segment"))
        self._end_as(outcome)

    def _end_as(self, outcome: Outcome) -> None:
        self._held.close()
        self._pieces = ()
        self._made.clear()
        self.outcome = outcome

    def progress(self) -> TaskProgress | None:
        """See :class:`Entry`."""
        if self._job is None or self.outcome is not None:
            return None
        kept, total = self._job.store.frames, self._job.plan.clip.frames
        done = kept + sum(made.frames for _, made in self._made.values())
        done += int(sum(self._pool.share(unit) for unit in itertools.islice(self._making, 8)))
        share = min(done / total, 1.0) if total else 0.0
        return TaskProgress(self._paths.named, share, done, total, self._job.resumed, kept)

    def close(self) -> None:
        """See :class:`Entry`."""
        if self._finishing is not None:
            self._finishing.result()
        self._held.close()
        self._pieces = ()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
