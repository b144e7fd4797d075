"""A job: many files through one upscaler. A bad file is reported and the others go on."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from paragonsr2.clips.container import is_video
from paragonsr2.errors import BackendError, BusyOutputError, ParagonError
from paragonsr2.images.names import DEFAULT_QUALITY
from paragonsr2.images.reading import MAX_PIXELS
from paragonsr2.upscale.pictures import PictureOptions, enlarge_pictures
from paragonsr2.upscale.task import (
    Outcome,
    Progress,
    Task,
    TaskProgress,
    failed,
    is_newer,
    skipped,
)
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import VideoOptions, VideoProgress, VideoResult, upscale_video


def run_tasks(
    tasks: Sequence[Task],
    upscaler: Upscaler,
    *,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    quality: int | None = None,
    strict: bool = False,
    video: VideoOptions | None = None,
    progress: Progress | None = None,
) -> Generator[Outcome]:
    """Enlarge files. An expected error becomes a failed outcome, not an exception.

    Args:
        tasks: what to do, in order.
        upscaler: enlarges the pixels.
        overwrite: replace results that are newer than their input, too.
        max_pixels: largest image that is accepted, all pages together.
        quality: of lossy image formats, 1..100; None for the default.
        strict: fail on inputs that would be done with notes.
        video: how clips are coded, and their limits.
        progress: called as a task advances.

    Yields:
        An outcome for each task, in order, as soon as it is known.
    """
    pictures = PictureOptions(
        max_pixels=max_pixels,
        quality=DEFAULT_QUALITY if quality is None else quality,
        overwrite=overwrite,
        strict=strict,
    )
    clips = replace(video or VideoOptions(), strict=strict)
    for are_clips, group in groupby(tasks, key=lambda task: is_video(task.source)):
        if not are_clips:
            yield from enlarge_pictures(list(group), upscaler, pictures, progress)
            continue
        for task in group:
            if not overwrite and is_newer(task.target, task.source):
                yield skipped(task)
            else:
                yield _enlarge_clip(task, upscaler, clips, progress)


def run_task(task: Task, upscaler: Upscaler, **options: Any) -> Outcome:
    """Enlarge one file; options as in :func:`run_tasks`."""
    (outcome,) = run_tasks([task], upscaler, **options)
    return outcome


def _enlarge_clip(
    task: Task, upscaler: Upscaler, options: VideoOptions, progress: Progress | None
) -> Outcome:
    def report(state: VideoProgress) -> None:
        if progress is not None:
            share = min(state.done / state.total, 1.0) if state.total else 0.0
            progress(TaskProgress(task, share, state.done, state.total, state.resumed, state.kept))

    started = time.perf_counter()
    try:
        result = upscale_video(task.source, task.target, upscaler, options, progress=report)
    except BusyOutputError as error:
        return skipped(task, error)
    except ParagonError as error:
        return failed(task, error)
    except MemoryError:
        return failed(task, BackendError("not enough memory; use a smaller --tile"))
    return clip_outcome(task, result, time.perf_counter() - started)


def clip_outcome(task: Task, result: VideoResult, seconds: float) -> Outcome:
    """The outcome of a clip that is done."""
    return Outcome(
        task.source,
        task.target,
        "done",
        "; ".join(result.damage + result.notes),
        result.width,
        result.height,
        seconds,
        frames=result.frames,
        resumed=result.resumed,
        notes=result.damage,
    )
