"""The line that image files go through: read, enlarged and written at the same time."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from paragonsr2.arrays.pixels import Pixels
from paragonsr2.errors import ParagonError
from paragonsr2.images.header import Header
from paragonsr2.images.reading import ImageReader
from paragonsr2.images.writing import check_writable, write_strips
from paragonsr2.upscale.backends import cores
from paragonsr2.upscale.pipe import AbandonedError, Pipe
from paragonsr2.upscale.upscaler import Upscaler, available_memory

Status = Literal["done", "skipped", "failed"]

#: Told how far a task is: the share that is done, 0..1, and the frames, if it is a clip.
Progress = Callable[["Task", float, int], None]

#: Files, and strips of one file, that may wait between two steps of the line.
_WAITING = 2

#: Most pictures that are computed side by side, and most memory that they may take together.
_LANES = 8
_LANES_MEMORY = 1 << 31


@dataclass(frozen=True)
class Task:
    """One file to enlarge, and where to."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        source: input file.
        target: output file.
        status: ``done``, ``skipped`` (the output is newer than the input) or ``failed``.
        message: why, if not done; if done, what could not be kept.
        width, height: of the result; 0 if not done.
        seconds: from opening the input to the finished output, waiting for others included.
        pages: of an animation or document.
        frames: of a video; 0 of an image.
    """

    source: Path
    target: Path
    status: Status
    message: str = ""
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    pages: int = 1
    frames: int = 0


class _Job:
    """A task on its way through the line."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.started = time.perf_counter()
        self.header: Header | None = None
        self.notes: tuple[str, ...] = ()
        self.error: BaseException | None = None
        self.read: Pipe[Pixels] = Pipe(_WAITING)
        self.enlarged: Pipe[Pixels] = Pipe(_WAITING)

    def outcome(self, status: Status, message: str) -> Outcome:
        return Outcome(self.task.source, self.task.target, status, message)

    def done(self, header: Header) -> Outcome:
        seconds = time.perf_counter() - self.started
        return Outcome(
            self.task.source, self.task.target, "done", "; ".join(self.notes),
            header.width, header.height, seconds, header.pages,
        )  # fmt: skip


class _Lanes:
    """Threads that compute small pictures side by side, each on its part of the cores.

    Args:
        upscaler: whose twin they use.
        compute: takes a job and the upscaler to do it with.
    """

    def __init__(self, upscaler: Upscaler, compute: Callable[[_Job, Upscaler], None]) -> None:
        self.number = min(cores(), _LANES)
        self._upscaler, self._compute = upscaler, compute
        memory = min(_LANES_MEMORY, available_memory() // 4)
        self._most = memory // self.number // upscaler.backend.bytes_per_pixel
        self._pool = ThreadPoolExecutor(self.number)

    @cached_property
    def _twin(self) -> Upscaler | None:
        return self._upscaler.divided(self.number) if self.number > 1 else None

    def take(self, job: _Job) -> bool:
        """Compute ``job`` sooner or later, unless it is large enough for all cores."""
        header = job.header
        # An animation takes as long as one picture of all its pages.
        if header is None or header.height * header.width * header.pages > self._most:
            return False
        if self._twin is None:
            return False
        self._pool.submit(self._compute, job, self._twin)
        return True

    def close(self) -> None:
        """Wait for what is under way; the rest is not begun."""
        self._pool.shutdown(cancel_futures=True)


class Line:
    """Reading and writing in threads of their own, computing in the one that asks.

    Small pictures are computed in threads of their own, too, several at once.

    Args:
        upscaler: that does the work.
        max_pixels: of an input; see :class:`~paragonsr2.images.reading.ImageReader`.
        quality: of lossy formats, 1..100.
        overwrite: also where the output is newer than the input.
    """

    def __init__(
        self, upscaler: Upscaler, *, max_pixels: int, quality: int, overwrite: bool
    ) -> None:
        self.upscaler = upscaler
        self.max_pixels, self.quality, self.overwrite = max_pixels, quality, overwrite
        self._opened: Pipe[_Job] = Pipe(_WAITING)
        self._computed: Pipe[_Job] = Pipe(max(_WAITING, min(cores(), _LANES)))
        self._finished: Pipe[Outcome] = Pipe(sys.maxsize)
        self._under_way: set[_Job] = set()

    def run(self, tasks: Sequence[Task], progress: Progress | None) -> Iterator[Outcome]:
        """Do the tasks; see :func:`paragonsr2.upscale.job.run_tasks`."""
        threads = [
            threading.Thread(target=self._read, args=(tasks,), daemon=True),
            threading.Thread(target=self._write, daemon=True),
        ]
        for thread in threads:
            thread.start()
        telling = threading.Lock()

        def tell(task: Task, share: float) -> None:
            if progress is not None:
                with telling:
                    progress(task, share, 0)

        def compute(job: _Job, upscaler: Upscaler) -> None:
            self._compute(job, upscaler, tell)

        lanes = _Lanes(self.upscaler, compute)
        several = len(tasks) > 1
        try:
            with contextlib.suppress(AbandonedError):
                for job in self._opened:
                    # Written in this order, whichever is computed first.
                    self._computed.put(job)
                    if not (several and lanes.take(job)):
                        compute(job, self.upscaler)
                    yield from self._finished.ready()
            self._computed.close()
            yield from self._finished
        finally:
            self._opened.abandon()
            self._computed.abandon()
            for job in list(self._under_way):
                job.read.abandon()
                job.enlarged.close(AbandonedError())
            lanes.close()
            for thread in threads:
                thread.join()

    def _read(self, tasks: Sequence[Task]) -> None:
        with contextlib.suppress(AbandonedError):
            for task in tasks:
                job = _Job(task)
                self._under_way.add(job)
                self._read_one(job)
            self._opened.close()

    def _read_one(self, job: _Job) -> None:
        task = job.task
        try:
            if not self.overwrite and is_newer(task.target, task.source):
                self._opened.put(job)
                return
            reader = ImageReader(task.source, max_pixels=self.max_pixels)
            lost = check_writable(task.target, reader.header.enlarged(self.upscaler.scale))
        except Exception as error:
            job.error = error
            self._opened.put(job)
            return
        job.header, job.notes = reader.header, reader.header.notes + lost
        self._opened.put(job)
        try:
            with reader:
                for strip in reader.strips():
                    job.read.put(strip)
            job.read.close()
        except AbandonedError:
            pass  # computing or writing failed, which stops this file alone
        except Exception as error:
            job.read.close(error)

    def _compute(self, job: _Job, upscaler: Upscaler, tell: Callable[[Task, float], None]) -> None:
        header = job.header
        if header is None:
            return
        strips = iter(job.read)
        try:
            for page in range(header.pages):
                bands = upscaler.strips(
                    strips, header.height, header.width, opaque=header.opaque,
                    progress=lambda share, page=page: tell(
                        job.task, (page + share) / header.pages
                    ),
                )  # fmt: skip
                for band in bands:
                    job.enlarged.put(band)
            job.enlarged.close()
        except AbandonedError:
            pass  # writing failed, and says why
        except Exception as error:
            job.enlarged.close(error)
        finally:
            job.read.abandon()

    def _write(self) -> None:
        try:
            for job in self._computed:
                self._finished.put(self._write_one(job))
                self._under_way.discard(job)
            self._finished.close()
        except BaseException as error:
            self._computed.abandon()
            self._finished.close(error)

    def _write_one(self, job: _Job) -> Outcome:
        try:
            if job.error is not None:
                raise job.error
            if job.header is None:
                return job.outcome("skipped", "it is newer than the input; --overwrite replaces it")
            header = job.header.enlarged(self.upscaler.scale)
            write_strips(job.task.target, header, job.enlarged, quality=self.quality)
            return job.done(header)
        except ParagonError as error:
            return job.outcome("failed", str(error))
        except MemoryError:
            return job.outcome(
                "failed", "not enough memory; give a smaller --tile, or a smaller image"
            )
        finally:
            job.enlarged.abandon()


def is_newer(target: Path, source: Path) -> bool:
    """Whether a result is there and no older than what it was made from."""
    try:
        return target.stat().st_mtime_ns >= source.stat().st_mtime_ns
    except OSError:
        return False
