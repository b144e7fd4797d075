"""A job on a cluster: the outcomes of many files, in order, with a bounded number in work."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paragonsr2.clips.container import is_video
from paragonsr2.cluster.entries import ClipEntry, Entry, PictureEntry
from paragonsr2.cluster.pool import Pool, Unit
from paragonsr2.errors import WeightsError
from paragonsr2.files import atomic_path
from paragonsr2.upscale.pictures import PictureOptions
from paragonsr2.upscale.task import Outcome, Progress, Task
from paragonsr2.upscale.video import VideoOptions

# Files for each worker that may be in work or wait for an earlier one: a large file at the front
# must not stop the others.
_WINDOW = 16

# Workers on one clip while there are other files: each of them decodes all of it.
_TEAM = 8

# Seconds between two looks at what goes on.
_TICK = 0.5


@dataclass(frozen=True)
class JobOptions:
    """How files are read and written.

    Attributes:
        pictures: how pictures are.
        clips: how clips are.
        transfer: send bytes to the workers and back, because paths are not shared.
    """

    pictures: PictureOptions = field(default_factory=PictureOptions)
    clips: VideoOptions = field(default_factory=VideoOptions)
    transfer: bool = False


def run_on_cluster(
    tasks: Sequence[Task],
    pool: Pool,
    options: JobOptions = JobOptions(),
    progress: Progress | None = None,
) -> Generator[Outcome]:
    """Enlarge files on a cluster, as :func:`paragonsr2.upscale.job.run_tasks` does on one machine.

    Args:
        tasks: what to do, in order.
        pool: the workers.
        options: how.
        progress: called as the first unfinished task advances.

    Yields:
        An outcome for each task, in order, as soon as it is known.

    Raises:
        ClusterError: the cluster cannot go on; the same job resumes later.
    """
    with ThreadPoolExecutor(1) as finisher:
        flow = _Flow(tasks, pool, options, finisher)
        try:
            while True:
                yield from flow.outcomes()
                if flow.is_finished:
                    return
                while pool.is_idle and (unit := flow.next(pool.idle_worker)) is not None:
                    pool.submit(unit)
                for unit, result in pool.wait(0 if flow.has_outcome else _TICK):
                    flow.take(unit, result)
                if progress is not None:
                    flow.tell(progress)
        finally:
            flow.close()


class _Flow:
    """The files in work, in order; the tasks behind them have not been looked at.

    Args:
        tasks: of the job.
        pool: gives the number of workers.
        options: of the job.
        finisher: see :class:`ClipEntry`.
    """

    def __init__(
        self, tasks: Sequence[Task], pool: Pool, options: JobOptions, finisher: ThreadPoolExecutor
    ) -> None:
        self._tasks: Iterator[Task] = iter(tasks)
        self._pool, self._options, self._finisher = pool, options, finisher
        self._window: deque[Entry] = deque()
        self._giving: list[Entry] = []
        self._owners: dict[Unit, Entry] = {}
        # What each worker was last at, because it has that clip open.
        self._places: dict[object, Entry] = {}
        self._task: Task | None = next(self._tasks, None)

    @property
    def is_finished(self) -> bool:
        """Whether every outcome has been told."""
        return self._task is None and not self._window

    @property
    def has_outcome(self) -> bool:
        """Whether the outcome at the front is known."""
        return bool(self._window) and self._window[0].outcome is not None

    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes at the front that are known."""
        while self._window and (outcome := self._window[0].outcome) is not None:
            self._window.popleft().close()
            yield outcome

    def next(self, worker: object) -> Unit | None:
        """Work for a worker: where it is, else where a team has room, else of the next task."""
        self._giving = [entry for entry in self._giving if not entry.is_spent]
        at = Counter(id(entry) for one, entry in self._places.items() if one is not worker)
        here = [entry for entry in self._giving if entry is self._places.get(worker)]
        open_teams = [entry for entry in self._giving if at[id(entry)] < _TEAM]
        files: Iterator[Entry] = itertools.chain(here, open_teams, self._opened(), self._giving)
        for entry in files:
            if (unit := entry.next()) is not None:
                self._owners[unit] = self._places[worker] = entry
                return unit
        return None

    def _opened(self) -> Iterator[Entry]:
        """The files of the next tasks, as far as the window reaches."""
        while self._task is not None and len(self._window) < _WINDOW * self._pool.size:
            entry = self._entry(self._task)
            self._task = next(self._tasks, None)
            self._window.append(entry)
            self._giving.append(entry)
            yield entry

    def _entry(self, task: Task) -> Entry:
        options = self._options
        if not is_video(task.source):
            return PictureEntry(task, self._pool, options.pictures, transfer=options.transfer)
        return ClipEntry(
            task,
            self._pool,
            replace(options.clips, strict=options.pictures.strict),
            self._finisher,
            overwrite=options.pictures.overwrite,
            transfer=options.transfer,
        )

    def take(self, unit: Unit, result: Any) -> None:
        """Hand a result to the file that it belongs to."""
        self._owners.pop(unit).take(unit, result)

    def tell(self, progress: Progress) -> None:
        """Tell how far the first unfinished file is."""
        if self._window and (state := self._window[0].progress()) is not None:
            progress(state)

    def close(self) -> None:
        """Give up what is held for files that are not finished."""
        self._pool.abandon()
        for entry in self._window:
            entry.close()


@contextmanager
def probe(task: Task) -> Generator[tuple[Path, str]]:
    """A file beside a result, by which workers show that they see the same folders.

    Args:
        task: a task of the job.

    Yields:
        The file and its content.

    Raises:
        OutputError: the folder cannot be written.
    """
    place = Path(task.target.absolute().parent, "paragonsr2-cluster")
    with suppress(_OverError), atomic_path(place) as part:
        part.write_text(part.name, encoding="utf-8")
        yield part, part.name
        raise _OverError


class _OverError(Exception):
    """The file is of no more use."""


def model_path(model: str) -> str:
    """A model for workers, which have another working directory: a name, or an absolute path."""
    return str(Path(model).absolute()) if Path(model).is_file() else model


def transferred_model(model: str) -> bytes | None:
    """The content of a model's file, for workers that do not see it; None for a bundled one.

    Raises:
        WeightsError: it cannot be read.
    """
    path = Path(model)
    if not path.is_file():
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
