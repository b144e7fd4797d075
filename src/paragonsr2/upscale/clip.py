"""A video among the tasks of a job: what is wrong with it becomes an outcome."""

from __future__ import annotations

import time

from paragonsr2.errors import ParagonError
from paragonsr2.upscale.line import Outcome, Progress, Task, is_newer
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import VideoOptions, VideoProgress, upscale_video


def run_clip(
    task: Task,
    upscaler: Upscaler,
    options: VideoOptions,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Enlarge one clip; whatever is wrong with it becomes a failed outcome, not an exception.

    Args:
        task: source and target.
        upscaler: that enlarges the frames.
        options: codec and limits.
        overwrite: also where the target is newer than the source.
        progress: told after each frame; the share is 0 if the clip does not tell its length.
    """
    if not overwrite and is_newer(task.target, task.source):
        why = "it is newer than the input; --overwrite replaces it"
        return Outcome(task.source, task.target, "skipped", why)

    def report(state: VideoProgress) -> None:
        if progress is not None:
            share = min(state.done / state.total, 1.0) if state.total else 0.0
            progress(task, share, state.done)

    started = time.perf_counter()
    try:
        result = upscale_video(task.source, task.target, upscaler, options, progress=report)
    except ParagonError as error:
        return Outcome(task.source, task.target, "failed", str(error))
    except MemoryError:
        why = "not enough memory; give a smaller --tile"
        return Outcome(task.source, task.target, "failed", why)
    return Outcome(
        task.source,
        task.target,
        "done",
        "; ".join(result.notes),
        result.width,
        result.height,
        time.perf_counter() - started,
        frames=result.frames,
    )
