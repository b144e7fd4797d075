"""The jobs of the service, in an SQLite file that outlives the process."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from paragonsr2.errors import UsageError

State = Literal["queued", "running", "done", "failed", "cancelled"]

#: Runs of a job that may end with the death of the whole process before it counts as the cause.
_MOST_RUNS = 3


@dataclass(frozen=True)
class Job:
    """One picture or clip to enlarge.

    Attributes:
        id: names the job and its folder; only who started the job knows it.
        name: of the source, as the client called it; its suffix is that of the file.
        model, scale, strength: as in :class:`~paragonsr2.serve.choice.Choice`.
        codec: of a resulting clip; empty keeps the clip's own.
        quality: of lossy pictures and clips, 1..100; None for the default.
        created: seconds since the epoch.
        state: where it is.
        ended: seconds since the epoch; None while it is queued or running.
        runs: how often it was begun, without the runs that a stopping service put off.
        frames: of a clip that is a result; 0 until it is done.
        message: why it failed, or what the result has lost.
        format: of the result, as in :class:`~paragonsr2.serve.job_routes.JobForm`.
        width, height: of the result in pixels; 0 until it is done.
        pages: of a picture that is a result.
        seconds: from opening the source to the finished result, in the run that finished it.
        backend: the engine that computed it.
    """

    id: str
    name: str
    model: str
    scale: int
    codec: str
    quality: int | None
    created: float
    state: State = "queued"
    ended: float | None = None
    runs: int = 0
    frames: int = 0
    message: str = ""
    format: str = "keep"
    width: int = 0
    height: int = 0
    pages: int = 1
    seconds: float = 0.0
    backend: str = ""
    strength: float | None = None


_COLUMNS = {field.name: field.default for field in fields(Job)}


class JobStore:
    """The table of jobs. Threads may share it; a second process is refused.

    Args:
        path: of the SQLite file, which is created if it does not exist.
        clock: seconds since the epoch.

    Raises:
        UsageError: the file cannot be used, or another service uses it.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.RLock()
        try:
            self._connection = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
            # The lock lasts as long as the process.
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS jobs ({', '.join(_COLUMNS)}, PRIMARY KEY (id))"
            )
            self._connection.execute("BEGIN EXCLUSIVE")
            self._add_columns()
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise UsageError(
                f"cannot use {path} ({error}); stop the service that uses it, or give another "
                "--folder"
            ) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add(self, job: Job) -> None:
        """Add a job."""
        marks = ", ".join("?" * len(_COLUMNS))
        self._change(f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES ({marks})", *astuple(job))

    def get(self, job_id: str) -> Job | None:
        """Look up a job; None if there is none, or none any more."""
        found = self._jobs("WHERE id = ?", job_id)
        return found[0] if found else None

    def with_files(self) -> set[str]:
        """The jobs whose clip or result is kept."""
        return {job.id for job in self._jobs("WHERE state IN ('queued', 'running', 'done')")}

    def open_jobs(self) -> int:
        """Number of jobs that are queued or running."""
        return len(self._jobs("WHERE state IN ('queued', 'running')"))

    def recover(self) -> None:
        """Queue the jobs again that were running when the process died."""
        self._change(
            "UPDATE jobs SET state = 'failed', ended = ?, message = ? "
            "WHERE state = 'running' AND runs >= ?",
            self._clock(),
            f"the service died in each of {_MOST_RUNS} runs of this job",
            _MOST_RUNS,
        )
        self._change("UPDATE jobs SET state = 'queued' WHERE state = 'running'")

    def take(self) -> Job | None:
        """Begin the oldest queued job; None if there is none."""
        with self._lock:
            found = self._jobs("WHERE state = 'queued' ORDER BY created, rowid LIMIT 1")
            if not found:
                return None
            self._change(
                "UPDATE jobs SET state = 'running', runs = runs + 1 WHERE id = ?", found[0].id
            )
            return self.get(found[0].id)

    def put_off(self, job_id: str) -> None:
        """Queue a running job again, because the service stops; a cancelled one stays so."""
        self._change(
            "UPDATE jobs SET state = 'queued', runs = runs - 1 WHERE id = ? AND state = 'running'",
            job_id,
        )

    def finish(
        self, job_id: str, state: Literal["done", "failed"], message: str, **facts: object
    ) -> None:
        """End a running job; a cancelled one stays so.

        Args:
            job_id: the job.
            state: its end.
            message: why it failed, or what the result has lost.
            facts: fields of :class:`Job` that tell about the result.
        """
        values = {"state": state, "ended": self._clock(), "message": message, **facts}
        changes = ", ".join(f"{name} = ?" for name in values)
        self._change(
            f"UPDATE jobs SET {changes} WHERE id = ? AND state = 'running'",
            *values.values(),
            job_id,
        )

    def cancel(self, job_id: str) -> None:
        """Cancel a job that is queued or running."""
        self._change(
            "UPDATE jobs SET state = 'cancelled', ended = ? "
            "WHERE id = ? AND state IN ('queued', 'running')",
            self._clock(),
            job_id,
        )

    def remove(self, job_id: str) -> None:
        """Forget a job."""
        self._change("DELETE FROM jobs WHERE id = ?", job_id)

    def expired(self, keep_seconds: float) -> list[Job]:
        """The jobs that ended longer ago than ``keep_seconds``."""
        return self._jobs("WHERE ended < ?", self._clock() - keep_seconds)

    def oldest_result(self, but: str) -> Job | None:
        """The job that is done for the longest time, ``but`` one; None if there is none."""
        found = self._jobs("WHERE state = 'done' AND id != ? ORDER BY ended, rowid LIMIT 1", but)
        return found[0] if found else None

    def _add_columns(self) -> None:
        """Add what the table of an earlier version lacks."""
        there = {row[1] for row in self._connection.execute("PRAGMA table_info(jobs)")}
        for name, default in _COLUMNS.items():
            if name not in there:
                text = f"'{default}'" if isinstance(default, str) else default
                known = "" if default is None else f" DEFAULT {text}"
                self._connection.execute(f"ALTER TABLE jobs ADD COLUMN {name}{known}")

    def _jobs(self, where: str, *values: object) -> list[Job]:
        with self._lock, closing(self._connection.cursor()) as cursor:
            cursor.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs {where}", values)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        return [Job(*row) for row in rows]

    def _change(self, statement: str, *values: object) -> None:
        with self._lock, closing(self._connection.cursor()) as cursor:
            cursor.execute(statement, values)
