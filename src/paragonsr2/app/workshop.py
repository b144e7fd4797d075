"""The work behind the page: inspecting uploads and running jobs, without any user interface."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from paragonsr2.app.limits import Limits
from paragonsr2.app.page_files import PageFile, PageFiles
from paragonsr2.app.preview import MediaSize, make_preview
from paragonsr2.clips.container import VIDEO_SUFFIXES, is_video
from paragonsr2.clips.plan import target_suffix
from paragonsr2.errors import ImageError, InputError, StoppedError
from paragonsr2.images.formats import FORMATS, READABLE, WRITABLE, kept_suffix
from paragonsr2.serve.choice import Choice
from paragonsr2.serve.spool import folder_bytes
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task, TaskProgress
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import VideoOptions
from paragonsr2.variants import SCALES

#: Number of opened networks to keep, with their buffers.
_OPEN_UPSCALERS = 2


@dataclass(frozen=True)
class Result:
    """A finished job.

    Attributes:
        item: the file of the result.
        before: dimensions of the input.
        after: dimensions of the result.
        file_bytes: size of the file.
        seconds: time to read, compute and write, without the time in the queue.
        backend: the engine that computed it.
        message: what the format of the result could not keep; empty if nothing was lost.
    """

    item: PageFile
    before: MediaSize
    after: MediaSize
    file_bytes: int
    seconds: float
    backend: str
    message: str


@dataclass(eq=False)
class PageJob:
    """A job that is running or queued.

    Attributes:
        share: progress, 0..1.
        future: resolves to the :class:`Result`, or raises the error of the job.
    """

    share: float = 0.0
    future: Future[Result] = field(default_factory=Future[Result])
    _stop: threading.Event = field(default_factory=threading.Event)
    _deadline: float | None = None

    def begin(self, seconds: float) -> None:
        """Start the clock: the job may take ``seconds``.

        Raises:
            StoppedError: it was stopped while it was queued.
        """
        self._deadline = time.monotonic() + seconds
        self.advance(0.0)

    def stop(self) -> None:
        """Stop the job after its current tile; a queued job never starts."""
        self._stop.set()
        self.future.cancel()

    def advance(self, share: float) -> None:
        """Record the progress.

        Raises:
            StoppedError: the job was stopped or has run out of time.
        """
        self.share = share
        if self._stop.is_set():
            raise StoppedError("cancelled")
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise StoppedError(
                "this takes longer than the page allows; paragonsr2 upscale has no time limit"
            )


class Workshop:
    """Runs jobs on the page's files, one at a time."""

    def __init__(self, files: PageFiles) -> None:
        self.files = files
        self.limits: Limits = files.limits
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job")
        self._upscalers: OrderedDict[tuple[str, int], Upscaler] = OrderedDict()
        self._jobs: set[PageJob] = set()

    def inspect(self, token: str, owner: str) -> tuple[PageFile, MediaSize]:
        """Check an upload and make the preview that the page shows.

        Args:
            token: of the upload.
            owner: session of the visitor.

        Raises:
            InputError: the upload is gone, not an image or clip, damaged, or too large.
        """
        with self.files.use(token) as item:
            item.owner = owner
            return item, make_preview(
                item.path, item.shown, max_pixels=self.limits.result_pixels // min(SCALES) ** 2
            )

    def start(self, token: str, choice: Choice) -> PageJob:
        """Queue a job.

        Raises:
            OptionError: the page does not offer this choice.
        """
        choice.check()
        job = PageJob()
        self._jobs.add(job)
        job.future = self._worker.submit(self._run, job, token, choice)
        job.future.add_done_callback(lambda _: self._jobs.discard(job))
        return job

    def close(self) -> None:
        """Stop all jobs; waits until the running one has finished its tile."""
        for job in list(self._jobs):
            job.stop()
        self._worker.shutdown(cancel_futures=True)

    def _run(self, job: PageJob, token: str, choice: Choice) -> Result:
        job.begin(self.limits.job_seconds)
        upscaler = self._open(choice.model, choice.scale)
        max_pixels = self.limits.result_pixels // choice.scale**2

        with self.files.use(token) as source:
            before = make_preview(source.path, source.shown, max_pixels=max_pixels)
            most = self._largest_result(before, choice.scale)
            name, suffix = _result_name(source, choice)
            with self.files.write(name, suffix, most, source.owner) as result:

                def check_size() -> None:
                    if folder_bytes(result.path.parent) > most:
                        raise StoppedError("the result is larger than the page allows")

                def report(state: TaskProgress) -> None:
                    check_size()
                    job.advance(state.share)

                outcome = run_task(
                    Task(source.path, result.path),
                    upscaler,
                    max_pixels=max_pixels,
                    video=VideoOptions(max_pixels=max_pixels),
                    progress=report,
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

    def _largest_result(self, before: MediaSize, scale: int) -> int:
        if before.frames is not None:
            return self.limits.disk_bytes // 4
        # An image takes at most 4 channels of 16 bits, uncompressed.
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
    """The lower-case suffix of an upload.

    Raises:
        InputError: the page reads no files with this suffix.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix not in READABLE | VIDEO_SUFFIXES:
        known = ", ".join(form.title for form in FORMATS.values())
        raise InputError(f"the page cannot read '{name[-40:]}'; it reads {known} and video")
    return suffix


def _result_name(source: PageFile, choice: Choice) -> tuple[str, str]:
    if is_video(source.path):
        suffix = target_suffix(Path(source.name))
    elif choice.image_format == "keep":
        suffix = kept_suffix(Path(source.name))
    else:
        suffix = WRITABLE[choice.image_format].suffixes[0]
    return f"{PurePath(source.name).stem}_x{choice.scale}{suffix}", suffix.lower()
