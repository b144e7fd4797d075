"""A job: many image files through one upscaler. A bad file is reported and the rest go on."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paragonsr2.errors import InputError, OutputError, ParagonError, UsageError
from paragonsr2.pixels.files import (
    FORMATS,
    MAX_PIXELS,
    READABLE,
    Picture,
    format_of,
    read_picture,
    write_picture,
)
from paragonsr2.upscale.upscaler import Upscaler

Status = Literal["done", "skipped", "failed"]


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
        status: ``done``, ``skipped`` (it exists) or ``failed``.
        message: why, if not done.
        width, height: of the result; 0 if not done.
        seconds: for the whole file, reading and writing included.
    """

    source: Path
    target: Path
    status: Status
    message: str = ""
    width: int = 0
    height: int = 0
    seconds: float = 0.0


def plan_tasks(
    inputs: Sequence[str], output: Path | None, scale: int, image_format: str = "keep"
) -> list[Task]:
    """Find the input files and name their outputs.

    Beside its input a result is called ``name_x2.png``; in an output folder it keeps its name
    and its place in the tree.

    Args:
        inputs: files, folders (searched recursively) and glob patterns.
        output: a file for a single input, a folder, or None for beside the input.
        scale: of the upscaler, for names.
        image_format: ``keep`` or one of :data:`FORMATS`.

    Raises:
        InputError: an input does not exist, or there is nothing to do.
        UsageError: one output file for several inputs, an output that is an input, or two
            inputs with the same output.
    """
    found = list(_find(inputs))
    if not found:
        raise InputError("there are no images in the inputs")
    as_file = output is not None and output.suffix.lower() in READABLE and not output.is_dir()
    if as_file and len(found) > 1:
        raise UsageError(f"{output} is one file for {len(found)} inputs; give a folder")
    sources = {source.resolve() for source, _ in found}
    tasks: dict[Path, Task] = {}
    for source, place in found:
        suffix = source.suffix if image_format == "keep" else FORMATS[image_format]
        if output is None:
            target = source.with_name(f"{source.stem}_x{scale}{suffix}")
        elif as_file:
            target = output
        else:
            target = (output / place).with_suffix(suffix)
        key = target.resolve()
        if key in sources:
            raise UsageError(f"{target} is an input; give another -o")
        if key in tasks:
            raise UsageError(f"{tasks[key].source} and {source} would both become {target}")
        tasks[key] = Task(source, target)
    return list(tasks.values())


def _find(inputs: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Each input file with its place below the folder it was found in."""
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.suffix.lower() in READABLE and file.is_file():
                    yield file, file.relative_to(path)
        elif path.exists():
            yield path, Path(path.name)
        else:
            matches = sorted(glob.glob(text, recursive=True))
            if not matches:
                raise InputError(f"there is no {text}")
            yield from _find(matches)


def run_task(
    task: Task,
    upscaler: Upscaler,
    *,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Enlarge one file; whatever is wrong with it becomes a failed outcome, not an exception."""
    if task.target.exists() and not overwrite:
        return Outcome(task.source, task.target, "skipped", "it exists; --overwrite replaces it")
    started = time.perf_counter()
    try:
        format_of(task.target)
        picture = read_picture(task.source, max_pixels=max_pixels)
        large = upscaler(picture.pixels, progress)
        resolution = (
            picture.resolution[0] * upscaler.scale,
            picture.resolution[1] * upscaler.scale,
        )
        write_picture(task.target, Picture(large, picture.carried, resolution))
    except ParagonError as error:
        return Outcome(task.source, task.target, "failed", str(error))
    except MemoryError:
        message = "not enough memory; give a smaller --tile, or a smaller image"
        return Outcome(task.source, task.target, "failed", message)
    seconds = time.perf_counter() - started
    height, width = large.shape[:2]
    return Outcome(task.source, task.target, "done", "", width, height, seconds)


def check_output_folder(output: Path | None) -> None:
    """Make the output folder before any work is done for it.

    Raises:
        OutputError: it cannot be made.
    """
    if output is None or output.suffix.lower() in READABLE:
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make folder {output}: {error.strerror or error}") from error
