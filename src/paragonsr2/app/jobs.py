"""What the page does for its visitors, without the page."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from paragonsr2.app.limits import Limits
from paragonsr2.app.preview import Size, make_preview
from paragonsr2.app.store import Item, Store, folder_bytes
from paragonsr2.clips.container import VIDEO_SUFFIXES, is_video
from paragonsr2.clips.remux import target_suffix
from paragonsr2.errors import ImageError, InputError, OptionError, ParagonError
from paragonsr2.images.formats import FORMATS, READABLE, WRITABLE, kept_suffix
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.line import Task
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import VideoOptions
from paragonsr2.variants import SCALES
from paragonsr2.weights.catalogue import entries

#: Opened networks that are kept, with their buffers.
_OPEN_UPSCALERS = 2

CLASSICAL = ("bicubic", "magic:1.0")


class JobStoppedError(ParagonError):
    """The visitor left or cancelled, time is up, or the server ends."""


@dataclass(frozen=True)
class Choice:
    """What a visitor chose.

    Attributes:
        model: a key of :func:`offered`.
        scale: one that the model is offered with.
        image_format: of pictures, ``keep`` or one of :data:`paragonsr2.images.formats.WRITABLE`.
    """

    model: str
    scale: int
    image_format: str = "keep"

    def check(self) -> None:
        """Refuse what the page does not offer.

        Raises:
            OptionError: naming what it is.
        """
        models = offered()
        if self.model not in models:
            raise OptionError(f"no model '{self.model[:40]}'; there are {', '.join(models)}")
        if self.scale not in models[self.model]:
            scales = ", ".join(map(str, models[self.model]))
            raise OptionError(f"{self.model} enlarges {scales} times, not {self.scale}")
        if self.image_format != "keep" and self.image_format not in WRITABLE:
            known = ", ".join(WRITABLE)
            raise OptionError(f"no format '{self.image_format[:40]}'; there are {known}")


def offered() -> dict[str, tuple[int, ...]]:
    """Models and their scales: the bundled networks, then the classical resizes to compare."""
    models: dict[str, tuple[int, ...]] = {}
    for entry in entries():
        models[entry.model] = (*models.get(entry.model, ()), entry.scale)
    return models | dict.fromkeys(CLASSICAL, tuple(SCALES))


@dataclass(frozen=True)
class Result:
    """A finished job.

    Attributes:
        item: the result in the store.
        before: size of the input.
        after: size of the result.
        file_bytes: of the result's file.
        seconds: reading, computing and writing, without waiting in the queue.
        backend: engine that computed.
        message: what the result's format could not keep.
    """

    item: Item
    before: Size
    after: Size
    file_bytes: int
    seconds: float
    backend: str
    message: str


@dataclass(eq=False)
class Job:
    """A job that runs or waits.

    Attributes:
        share: done, 0..1.
        future: of the :class:`Result`; raises what went wrong.
    """

    share: float = 0.0
    future: Future[Result] = field(default_factory=Future[Result])
    _stop: threading.Event = field(default_factory=threading.Event)
    _deadline: float | None = None

    def begin(self, seconds: float) -> None:
        """Give it ``seconds`` from now; it may have been stopped while it waited."""
        self._deadline = time.monotonic() + seconds
        self.advance(0.0)

    def stop(self) -> None:
        """End it after the tile it is at; a waiting job never starts."""
        self._stop.set()
        self.future.cancel()

    def advance(self, share: float) -> None:
        """Note the share done, and end the job if it should end.

        Raises:
            JobStoppedError: it should.
        """
        self.share = share
        if self._stop.is_set():
            raise JobStoppedError("cancelled")
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise JobStoppedError(
                "this takes longer than the page allows; the command has no limit"
            )


class Workshop:
    """Runs one job at a time on the files of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.limits: Limits = store.limits
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job")
        self._upscalers: OrderedDict[tuple[str, int], Upscaler] = OrderedDict()
        self._jobs: set[Job] = set()

    def inspect(self, token: str, owner: str) -> tuple[Item, Size]:
        """Look at an upload and make the copy of it that is shown.

        Raises:
            InputError: gone, no image, damaged or too large.
        """
        with self.store.use(token) as item:
            item.owner = owner
            return item, make_preview(
                item.path, item.shown, max_pixels=self.limits.result_pixels // min(SCALES) ** 2
            )

    def start(self, token: str, choice: Choice) -> Job:
        """Put a job in the line.

        Raises:
            OptionError: the choice is none that is offered.
        """
        choice.check()
        job = Job()
        self._jobs.add(job)
        job.future = self._worker.submit(self._run, job, token, choice)
        job.future.add_done_callback(lambda _: self._jobs.discard(job))
        return job

    def close(self) -> None:
        """End all jobs and wait for the one that runs, at most until its tile is done."""
        for job in list(self._jobs):
            job.stop()
        self._worker.shutdown(cancel_futures=True)

    def _run(self, job: Job, token: str, choice: Choice) -> Result:
        job.begin(self.limits.job_seconds)
        upscaler = self._open(choice.model, choice.scale)
        max_pixels = self.limits.result_pixels // choice.scale**2

        with self.store.use(token) as source:
            before = make_preview(source.path, source.shown, max_pixels=max_pixels)
            most = self._largest_result(before, choice.scale)
            name, suffix = _result_name(source, choice)
            with self.store.write(name, suffix, most, source.owner) as result:

                def check_size() -> None:
                    if folder_bytes(result.path.parent) > most:
                        raise JobStoppedError("the result is larger than the page allows")

                def tell(_: Task, share: float, __: int) -> None:
                    check_size()
                    job.advance(share)

                outcome = run_task(
                    Task(source.path, result.path),
                    upscaler,
                    max_pixels=max_pixels,
                    video=VideoOptions(max_pixels=max_pixels),
                    progress=tell,
                )
                if outcome.status != "done":
                    raise ImageError(outcome.message.replace(str(source.path), source.name))
                check_size()
                after = make_preview(
                    result.path, result.shown, max_pixels=self.limits.result_pixels
                )
        return Result(
            item=result,
            before=before,
            after=replace(after, frames=outcome.frames or None),
            file_bytes=result.path.stat().st_size,
            seconds=outcome.seconds,
            backend=upscaler.backend.name,
            message=outcome.message,
        )

    def _largest_result(self, before: Size, scale: int) -> int:
        if before.frames is not None:
            return self.limits.disk_bytes // 4
        # More than 4 channels of 16 bits without compression cannot come of a picture.
        return before.pixels * scale**2 * 8

    def _open(self, model: str, scale: int) -> Upscaler:
        key = (model, scale)
        if key not in self._upscalers:
            self._upscalers[key] = Upscaler(model, scale)
            if len(self._upscalers) > _OPEN_UPSCALERS:
                self._upscalers.popitem(last=False)
        self._upscalers.move_to_end(key)
        return self._upscalers[key]


def suffix_of(name: str) -> str:
    """The suffix of a file that the page reads.

    Raises:
        InputError: another one, or none.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix not in READABLE | VIDEO_SUFFIXES:
        known = ", ".join(form.title for form in FORMATS.values())
        raise InputError(
            f"'{name[-40:]}' is no file that the page reads; it reads {known} and video"
        )
    return suffix


def _result_name(source: Item, choice: Choice) -> tuple[str, str]:
    if is_video(source.path):
        suffix = target_suffix(Path(source.name))
    elif choice.image_format == "keep":
        suffix = kept_suffix(Path(source.name))
    else:
        suffix = WRITABLE[choice.image_format].suffixes[0]
    return f"{PurePath(source.name).stem}_x{choice.scale}{suffix}", suffix.lower()
