"""The errors of the library, told to a client: without paths and flags of the command."""

from __future__ import annotations

import re

from paragonsr2.errors import (
    EnvironmentProblem,
    ImageTooLargeError,
    ParagonError,
    RefusedError,
    StoppedError,
)
from paragonsr2.upscale.task import Task


def told(error: ParagonError, task: Task, noun: str, most: int, scale: int) -> ParagonError:
    """The error of a task for the client who sent its source.

    Args:
        error: of the task.
        task: whose paths are left out.
        noun: what to call its source.
        most: largest source in pixels.
        scale: enlargement.
    """
    if isinstance(error, StoppedError):
        return error
    if isinstance(error, ImageTooLargeError):
        text = f"{noun} has more than {most / 1e6:g} megapixels, the most that is enlarged x{scale}"
        return RefusedError(413, text)
    status = 500 if isinstance(error, EnvironmentProblem) else 422
    return RefusedError(status, without_paths(str(error), task, noun))


def without_paths(text: str, task: Task, noun: str) -> str:
    """A message about a task without the paths of its files, and of anybody else's."""
    for path, name in (
        (task.source, noun),
        (task.target, "the result"),
        (task.source.parent, "the service's folder"),
    ):
        text = text.replace(str(path), name)
    # libvips has one list of errors for all threads, so a message may hold a neighbour's, too, and
    # the name of its folder is what only its owner knows.
    neighbours = re.escape(str(task.source.parent.parent)) + r"/[^\s'\",;:()]*"
    return re.sub(neighbours, "another file", text)
