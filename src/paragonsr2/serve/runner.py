"""The runner of jobs: one picture or clip at a time, in a thread, clips resumable at any moment."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from paragonsr2.clips.container import VIDEO_SUFFIXES
from paragonsr2.errors import RefusedError, StoppedError
from paragonsr2.serve.choice import Choice
from paragonsr2.serve.job_store import Job, JobStore
from paragonsr2.serve.limits import Limits
from paragonsr2.serve.logs import LOGGER, log
from paragonsr2.serve.models import Models
from paragonsr2.serve.names import result_suffix
from paragonsr2.serve.queueing import Stop
from paragonsr2.serve.spool import Spool, SpoolFolder
from paragonsr2.serve.telling import told, without_paths
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Outcome, Task, TaskProgress
from paragonsr2.upscale.video import VideoOptions

#: A job may write this share of the disk's limit.
_SHARE_OF_DISK = 0.25

#: Seconds after which a client that met a full list of jobs may try again.
_LATER = 60

#: Seconds after which the store is asked again when it failed, as it does when the disk is full.
_AGAIN = 10.0


@dataclass
class _Run:
    """A job that is running, until its end is in the store.

    Attributes:
        job_id: of the job.
        stop: ends it.
        begun: when, in monotonic seconds.
        share: how much of it is computed, 0..1.
        resumed: how much of it an earlier run had computed.
        told: when ``share`` was last told.
        backend: the engine that computes it.
    """

    job_id: str
    stop: Stop
    begun: float = field(default_factory=time.monotonic)
    share: float = 0.0
    resumed: float = 0.0
    told: float = 0.0
    backend: str = ""

    def advance(self, state: TaskProgress) -> None:
        self.share, self.told = state.share, time.monotonic()
        self.resumed = state.resumed / state.total if state.total else 0.0

    def left(self) -> float | None:
        """Seconds until the end, if it goes on as it went; None while nothing is known."""
        done = self.share - self.resumed
        if done <= 0:
            return None
        whole = (self.told - self.begun) * (1 - self.share) / done
        return max(whole - (time.monotonic() - self.told), 0.0)


class JobRunner:
    """Runs the jobs of a store.

    A run of a clip that ends early, because the process is killed or stops, is resumed by the next
    one after its last finished segment; the result has the same bytes. A picture begins again.

    Args:
        store: the jobs.
        spool: their folders.
        models: that are open.
        limits: duration and size of a job.
    """

    def __init__(self, store: JobStore, spool: Spool, models: Models, limits: Limits) -> None:
        self._store, self._spool, self._models, self._limits = store, spool, models, limits
        self._folders: dict[str, SpoolFolder] = {}
        self._wake, self._closing = threading.Event(), threading.Event()
        self._running: _Run | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="jobs")

    def start(self) -> None:
        """Take up the jobs of the store, remove the files of none, and start the thread."""
        self._store.recover()
        known = self._store.with_files()
        for path in self._spool.root.iterdir():
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)
        for job_id in known:
            self._folders[job_id] = self._spool.folder(job_id)
        self._thread.start()

    def close(self) -> None:
        """Put the running job off at its next tile or frame, and end the thread."""
        with self._lock:
            self._closing.set()
            if self._running is not None:
                self._running.stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def require_room(self) -> None:
        """Refuse a job before its source is received.

        Raises:
            RefusedError: too many jobs are queued or running (429).
        """
        if self._store.open_jobs() >= self._limits.jobs:
            raise RefusedError(429, "too many jobs are waiting; try again later", _LATER)

    def add(self, job: Job, folder: SpoolFolder) -> None:
        """Queue a job whose source lies in ``folder``.

        Raises:
            RefusedError: too many jobs are queued or running (429).
        """
        with self._lock:
            self.require_room()
            self._store.add(job)
            self._folders[job.id] = folder
        self._wake.set()

    def share(self, job: Job) -> float:
        """How much of a job is computed, 0..1."""
        running = self._running
        if job.state == "done":
            return 1.0
        return running.share if running is not None and running.job_id == job.id else 0.0

    def left(self, job: Job) -> float | None:
        """Seconds that a job has probably left; None if it is not running or has just begun."""
        running = self._running
        return running.left() if running is not None and running.job_id == job.id else None

    def cancel(self, job: Job) -> None:
        """Cancel a job that has not ended, or forget one that has, and remove its files."""
        with self._lock:
            self._store.cancel(job.id)
            if self._running is not None and self._running.job_id == job.id:
                self._running.stop.set()  # its thread removes the files
                return
        if job.ended is not None:
            self._store.remove(job.id)
        self._remove(job.id)

    def expire(self) -> None:
        """Forget the jobs that ended long ago."""
        for job in self._store.expired(self._limits.keep_seconds):
            self.cancel(job)

    def forget_oldest(self, but: str = "") -> bool:
        """Forget the job that is done for the longest time, ``but`` one; False if there is none."""
        job = self._store.oldest_result(but)
        if job is not None:
            self.cancel(job)
        return job is not None

    def result(self, job: Job) -> Path:
        """The file that a job writes."""
        return self.task(job, self._spool.root / job.id).target

    def source(self, folder: Path, name: str) -> Path:
        """The file of a job's picture or clip."""
        return folder / f"source{PurePath(name).suffix.lower()}"

    def task(self, job: Job, folder: Path) -> Task:
        """What a job reads and writes in its folder."""
        source = self.source(folder, job.name)
        return Task(source, folder / f"result{result_suffix(source, job.format)}")

    def _remove(self, job_id: str) -> None:
        folder = self._folders.pop(job_id, None)
        if folder is not None:
            folder.close()

    def _loop(self) -> None:
        while True:
            self._wake.clear()
            if self._closing.is_set():
                return
            try:
                self._next()
            except sqlite3.Error:
                LOGGER.exception("the jobs cannot be read or written")
                self._wake.wait(_AGAIN)
            finally:
                self._running = None

    def _next(self) -> None:
        """Run the next job, or wait for one."""
        with self._lock:
            job = self._store.take()
            run = None if job is None else _Run(job.id, Stop(self._limits.job_seconds))
            self._running = run
        if job is None or run is None:
            self._wake.wait()
        else:
            self._work(job, run)

    def _work(self, job: Job, run: _Run) -> None:
        try:
            outcome = self._enlarge(job, run)
        except Exception:
            LOGGER.exception("job broke", extra={"fields": {"model": job.model}})
            outcome = None
        with self._lock:
            self._end(job, outcome, run.backend)
            self._running = None
            self._settle(job.id)
        self._make_room(job.id)

    def _end(self, job: Job, outcome: Outcome | None, backend: str) -> None:
        if outcome is None:
            self._store.finish(job.id, "failed", "an error in the service; its log has more")
        elif outcome.error is None:
            # A job that was killed after its last step finds its result there, up to date.
            task = Task(outcome.source, outcome.target)
            note = without_paths(outcome.message, task, noun(job))
            self._store.finish(
                job.id,
                "done",
                note if outcome.status == "done" else "",
                frames=outcome.frames,
                width=outcome.width,
                height=outcome.height,
                pages=outcome.pages,
                seconds=outcome.seconds,
                backend=backend,
            )
        elif self._closing.is_set() and isinstance(outcome.error, StoppedError):
            self._store.put_off(job.id)
        else:
            task = Task(outcome.source, outcome.target)
            most = video_options(job, self._limits).max_pixels
            error = told(outcome.error, task, noun(job), most, job.scale)
            self._store.finish(job.id, "failed", str(error))

    def _enlarge(self, job: Job, run: _Run) -> Outcome:
        folder = self._folders[job.id]
        task = self.task(job, folder.path)
        choice = Choice(job.model, job.scale, strength=job.strength)
        upscaler = self._models.open(choice.opened, job.scale)
        run.backend = upscaler.backend.name
        options = video_options(job, self._limits)
        most_bytes = int(self._limits.disk_bytes * _SHARE_OF_DISK)

        def report(state: TaskProgress) -> None:
            run.advance(state)
            run.stop.check()
            folder.measure()
            if folder.bytes > most_bytes:
                raise StoppedError("the result is larger than the service allows")
            self._make_room(job.id)

        return run_task(
            task,
            upscaler,
            max_pixels=options.max_pixels,
            quality=job.quality,
            video=options,
            progress=report,
        )

    def _make_room(self, job_id: str) -> None:
        """Let old results go for that of a job, if that is how room is made."""
        if self._limits.drop_oldest:
            while self._spool.used > self._spool.most and self.forget_oldest(job_id):
                pass

    def _settle(self, job_id: str) -> None:
        """After a run: remove what a cancelled or failed job leaves, and count the rest."""
        job = self._store.get(job_id)
        if job is None or job.state in ("cancelled", "failed"):
            self._remove(job_id)
        elif job_id in self._folders:
            if job.state == "done":
                self.source(self._folders[job_id].path, job.name).unlink(missing_ok=True)
            self._folders[job_id].measure()
        if job is not None:
            log("job", state=job.state, model=job.model, scale=job.scale, frames=job.frames)


def noun(job: Job) -> str:
    """What to call a job's source."""
    return "the clip" if is_clip(job.name) else "the picture"


def is_clip(name: str) -> bool:
    """Whether a job's source is a clip, by the suffix of its name."""
    return PurePath(name).suffix.lower() in VIDEO_SUFFIXES


def video_options(job: Job, limits: Limits) -> VideoOptions:
    """How the clip of a job is read and coded; ``max_pixels`` holds for pictures, too."""
    return VideoOptions(
        codec=job.codec or None,
        quality=job.quality,
        max_pixels=limits.result_pixels // job.scale**2,
    )
