"""One file of a job: what to do, how far it is, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paragonsr2.errors import ParagonError

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Task:
    """One file to enlarge, and the file to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class TaskProgress:
    """How far a task is.

    Attributes:
        task: the task.
        share: how much of it is computed, 0..1; 0 for a clip of unknown length.
        frames: finished frames of a clip; 0 for an image.
        total: all frames of a clip; 0 if unknown or for an image.
        resumed: frames that an earlier, interrupted run had finished.
        kept: frames that the next run need not compute again if this one stops now.
    """

    task: Task
    share: float
    frames: int = 0
    total: int = 0
    resumed: int = 0
    kept: int = 0


#: Called after every step of a task; an exception that it raises ends the task.
Progress = Callable[[TaskProgress], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        source: input file.
        target: output file.
        status: ``done``, ``skipped`` (the output is newer than the input, or another run is
            writing it) or ``failed``.
        message: the reason if the task is not done; its notes and what was lost if it is.
        width, height: size of the result in pixels; 0 if the task is not done.
        seconds: from opening the input to the finished output.
        pages: number of pages of an animation or document.
        frames: number of frames of a video; 0 for an image.
        resumed: frames of a video that an earlier run had finished.
        notes: what was wrong with the input of a task that is done all the same.
        jpeg_quality: about the quality that a JPEG input was stored with; None for all else.
        error: why the task failed, or was left to another run; None otherwise.
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
    resumed: int = 0
    notes: tuple[str, ...] = ()
    jpeg_quality: int | None = None
    error: ParagonError | None = None


def skipped(task: Task, error: ParagonError | None = None) -> Outcome:
    """The outcome of a task that another run has done or, by an error that says so, is doing."""
    message = "the output is newer than the input; --overwrite replaces it"
    return Outcome(
        task.source, task.target, "skipped", message if error is None else str(error), error=error
    )


def failed(task: Task, error: ParagonError) -> Outcome:
    """The outcome of a task that went wrong."""
    return Outcome(task.source, task.target, "failed", str(error), error=error)


def is_newer(target: Path, source: Path) -> bool:
    """Whether ``target`` exists and is not older than ``source``."""
    try:
        return target.stat().st_mtime_ns >= source.stat().st_mtime_ns
    except OSError:
        return False
