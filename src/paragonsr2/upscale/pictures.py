"""Enlarging a list of pictures: reading, computing and writing overlap."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from paragonsr2.arrays.pixels import Pixels
from paragonsr2.errors import BackendError, BusyOutputError, ParagonError
from paragonsr2.images.header import Header
from paragonsr2.images.jpeg import jpeg_quality
from paragonsr2.images.names import DEFAULT_QUALITY
from paragonsr2.images.reading import MAX_PIXELS, ImageReader
from paragonsr2.images.writing import check_writable, write_strips
from paragonsr2.upscale.background import in_background
from paragonsr2.upscale.resources import available_memory, cores
from paragonsr2.upscale.task import (
    Outcome,
    Progress,
    Task,
    TaskProgress,
    failed,
    is_newer,
    skipped,
)
from paragonsr2.upscale.team import engines_of
from paragonsr2.upscale.upscaler import Upscaler

#: Strips of a large picture that may wait between reading, computing and writing.
_STRIPS_AHEAD = 2

#: Most small pictures that are computed side by side, and the memory that this may take.
_MOST_LANES = 8
_SMALL_PICTURES_MEMORY = 1 << 31


@dataclass(frozen=True)
class PictureOptions:
    """How pictures are read and written.

    Attributes:
        max_pixels: largest input that is accepted, all pages together.
        quality: of lossy formats, 1..100.
        overwrite: replace results that are newer than their input, too.
        strict: refuse pictures that decode with warnings only.
    """

    max_pixels: int = MAX_PIXELS
    quality: int = DEFAULT_QUALITY
    overwrite: bool = False
    strict: bool = False


def enlarge_pictures(
    tasks: Sequence[Task],
    upscaler: Upscaler,
    options: PictureOptions,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Enlarge pictures, several at the same time.

    Each worker thread reads, enlarges and writes one picture. Small pictures are computed side by
    side, each on its share of the cores; there is one worker more than shares, because one of them
    usually reads or writes. A large picture gets all cores for itself, and its strips are read and
    written while others are computed.

    Yields:
        The outcomes in the order of the tasks, each as soon as it is known.
    """
    lanes = max(min(cores(), _MOST_LANES), engines_of(upscaler.backend)) if len(tasks) > 1 else 1
    number = lanes + 1 if len(tasks) > 1 else 1
    work = _Work(upscaler, options, progress, lanes=lanes)
    waiting: deque[Future[Outcome]] = deque()
    with ThreadPoolExecutor(number) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(work.enlarge, task))
                while waiting and (waiting[0].done() or len(waiting) > 2 * number):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            work.cancel()
            for future in waiting:
                future.cancel()


class _CancelledError(Exception):
    """Nobody waits for the result any more."""


class _Work:
    """What the workers share.

    Args:
        upscaler: enlarges the pictures.
        options: how they are read and written.
        progress: called after each tile, by one thread at a time.
        lanes: small pictures that are computed side by side.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        options: PictureOptions,
        progress: Progress | None,
        *,
        lanes: int,
    ) -> None:
        self.upscaler, self.options = upscaler, options
        self._progress, self._lanes = progress, lanes
        self._cancelled = threading.Event()
        self._reporting, self._all_cores, self._dividing = (threading.Lock() for _ in range(3))
        self._divided: Upscaler | None = None
        self._is_divided = lanes == 1
        memory = min(_SMALL_PICTURES_MEMORY, available_memory() // 4)
        self._small = memory // lanes // upscaler.backend.bytes_per_pixel

    def cancel(self) -> None:
        """Stop every picture after the tile it is at."""
        self._cancelled.set()

    def enlarge(self, task: Task) -> Outcome:
        """Enlarge one picture; an expected error becomes a failed outcome."""
        started = time.perf_counter()
        if not self.options.overwrite and is_newer(task.target, task.source):
            return skipped(task)
        try:
            result, notes, lost = self._convert(task)
        except BusyOutputError as error:
            return skipped(task, error)
        except ParagonError as error:
            return failed(task, error)
        except MemoryError:
            message = "not enough memory; use a smaller --tile or a smaller image"
            return failed(task, BackendError(message))
        return Outcome(
            task.source,
            task.target,
            "done",
            "; ".join(notes + lost),
            result.width,
            result.height,
            time.perf_counter() - started,
            result.pages,
            notes=notes,
            jpeg_quality=jpeg_quality(task.source),
        )

    def _convert(self, task: Task) -> tuple[Header, tuple[str, ...], tuple[str, ...]]:
        """Write the result; return its header, notes on the input, and what was lost."""
        options = self.options
        with ImageReader(
            task.source, max_pixels=options.max_pixels, strict=options.strict
        ) as reader:
            result = reader.header.enlarged(self.upscaler.scale)
            lost = check_writable(task.target, result)
            quality = options.quality
            upscaler = self._side_by_side(reader.header)
            if upscaler is not None:
                bands = self._bands(task, reader.header, reader.strips(), upscaler)
                write_strips(task.target, result, bands, quality=quality)
            else:
                with (
                    closing(in_background(reader.strips(), _STRIPS_AHEAD)) as strips,
                    closing(self._on_all_cores(task, reader.header, strips)) as bands,
                ):
                    write_strips(task.target, result, bands, quality=quality)
        return result, reader.warnings, reader.header.notes + lost

    def _side_by_side(self, header: Header) -> Upscaler | None:
        """The upscaler for small pictures; None if this one is large or the engine has none."""
        # All pages of an animation take as much time as one picture of their total size.
        if header.height * header.width * header.pages > self._small:
            return None
        with self._dividing:
            if not self._is_divided:
                self._divided = self.upscaler.divided(self._lanes)
                self._is_divided = True
        return self._divided

    def _on_all_cores(self, task: Task, header: Header, strips: Iterator[Pixels]):
        def alone() -> Iterator[Pixels]:
            with self._all_cores:
                yield from self._bands(task, header, strips, self.upscaler)

        return in_background(alone(), _STRIPS_AHEAD)

    def _bands(
        self, task: Task, header: Header, strips: Iterator[Pixels], upscaler: Upscaler
    ) -> Iterator[Pixels]:
        """Bands of rows of the result, page after page."""
        for page in range(header.pages):

            def report(share: float, page: int = page) -> None:
                self._report(task, (page + share) / header.pages)

            yield from upscaler.strips(
                strips, header.height, header.width, opaque=header.opaque, progress=report
            )

    def _report(self, task: Task, share: float) -> None:
        if self._cancelled.is_set():
            raise _CancelledError
        if self._progress is not None:
            with self._reporting:
                self._progress(TaskProgress(task, share))
