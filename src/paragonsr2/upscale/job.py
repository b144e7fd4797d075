"""A job: many files through one upscaler. A bad file is reported and the rest go on."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from paragonsr2.clips.container import VIDEO_SUFFIXES, is_video
from paragonsr2.clips.remux import target_suffix
from paragonsr2.clips.segments import is_work
from paragonsr2.errors import InputError, OutputError, UsageError
from paragonsr2.files import is_temporary
from paragonsr2.images.formats import READABLE, WRITABLE, kept_suffix
from paragonsr2.images.reading import MAX_PIXELS
from paragonsr2.upscale.clip import run_clip
from paragonsr2.upscale.line import Line, Outcome, Progress, Task
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import VideoOptions

#: Quality of lossy image formats where none is asked for, 1..100.
IMAGE_QUALITY = 95


def plan_tasks(
    inputs: Sequence[str],
    output: Path | None,
    scale: int,
    image_format: str = "keep",
    suffix: str | None = None,
) -> list[Task]:
    """Find the input files and name their outputs.

    Beside its input a result is called ``name_x2.png``; in an output folder it keeps its name
    and its place in the tree. Results of an earlier run that lie in a searched folder are no
    inputs.

    Args:
        inputs: files, folders (searched recursively) and glob patterns.
        output: a file for a single input, a folder, or None for beside the input.
        scale: of the upscaler, for names.
        image_format: of images: ``keep`` or one of
            :data:`~paragonsr2.images.formats.WRITABLE`.
        suffix: put behind the names; None is ``_x2`` beside the input and nothing in a folder.

    Raises:
        InputError: an input does not exist, or there is nothing to do.
        UsageError: one output file for several inputs, an output that is an input, two inputs
            with the same output, or a format or suffix that cannot be.
    """
    if image_format != "keep" and image_format not in WRITABLE:
        raise UsageError(f"this libvips is built without {image_format}; take another --format")
    if suffix is not None and Path(f"x{suffix}").name != f"x{suffix}":
        raise UsageError(f"--suffix {suffix} leads to another folder; give letters and digits")
    found = list(_find(inputs, output))
    as_file = output is not None and names_a_file(output)
    if as_file and len(found) > 1:
        raise UsageError(f"{output} is one file for {len(found)} inputs; give a folder")

    def target_of(source: Path, place: Path) -> Path:
        if as_file and output is not None:
            return output
        if is_video(source):
            ending = target_suffix(source)
        elif image_format == "keep":
            ending = kept_suffix(source)
        else:
            ending = WRITABLE[image_format].suffixes[0]
        behind = f"_x{scale}" if suffix is None and output is None else suffix or ""
        folder = source.parent if output is None else (output / place).parent
        return folder / f"{source.stem}{behind}{ending}"

    if output is None and suffix != "":
        made = {target_of(source, place).resolve() for source, place, _ in found}
        found = [one for one in found if not one[2] or one[0].resolve() not in made]
    if not found:
        raise InputError("there are no images or videos in the inputs")
    sources = {source.resolve() for source, _, _ in found}
    tasks: dict[Path, Task] = {}
    for source, place, _ in found:
        target = target_of(source, place)
        key = target.resolve()
        if key in sources:
            raise UsageError(f"{target} is an input; give another -o or --suffix")
        if key in tasks:
            raise UsageError(f"{tasks[key].source} and {source} would both become {target}")
        tasks[key] = Task(source, target)
    return list(tasks.values())


def names_a_file(output: Path) -> bool:
    """Whether an output is meant as a file, not as a folder."""
    return output.suffix.lower() in READABLE | VIDEO_SUFFIXES and not output.is_dir()


def _find(inputs: Sequence[str], output: Path | None) -> Iterator[tuple[Path, Path, bool]]:
    """Each input file, its place below the folder it was found in, and whether it was found."""
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if _is_input(file) and not _lies_below(file, output, path):
                    yield file, file.relative_to(path), True
        elif path.exists():
            yield path, Path(path.name), False
        else:
            matches = sorted(glob.glob(text, recursive=True))
            if not matches:
                raise InputError(f"there is no {text}")
            yield from _find(matches, output)


def _is_input(path: Path) -> bool:
    known = path.suffix.lower() in READABLE | VIDEO_SUFFIXES
    return known and path.is_file() and not is_temporary(path) and not is_work(path)


def _lies_below(file: Path, output: Path | None, searched: Path) -> bool:
    """Whether ``file`` is in an output folder that is itself inside the searched one."""
    if output is None:
        return False
    folder = output.resolve()
    return searched.resolve() in folder.parents and folder in file.resolve().parents


def run_tasks(
    tasks: Sequence[Task],
    upscaler: Upscaler,
    *,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    quality: int | None = None,
    video: VideoOptions | None = None,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Enlarge files; reading the next and writing the last go on while one is computed.

    Whatever is wrong with a file becomes a failed outcome, not an exception.

    Args:
        tasks: what to do, in order.
        upscaler: that does it.
        overwrite: also where the output is newer than the input.
        max_pixels: of an input, all pages together.
        quality: of lossy image formats, 1..100; None for the default.
        video: how clips are coded, and limits of theirs.
        progress: told how far a task is.

    Yields:
        An outcome for each task, in order, as soon as it is known.
    """
    for are_clips, group in groupby(tasks, key=lambda task: is_video(task.source)):
        if are_clips:
            for task in group:
                yield run_clip(
                    task, upscaler, video or VideoOptions(), overwrite=overwrite, progress=progress
                )
        else:
            line = Line(
                upscaler,
                max_pixels=max_pixels,
                quality=IMAGE_QUALITY if quality is None else quality,
                overwrite=overwrite,
            )
            yield from line.run(list(group), progress)


def run_task(task: Task, upscaler: Upscaler, **options: Any) -> Outcome:
    """Enlarge one file; options as in :func:`run_tasks`."""
    (outcome,) = run_tasks([task], upscaler, **options)
    return outcome


def check_output_folder(output: Path | None) -> None:
    """Make the output folder before any work is done for it.

    Raises:
        OutputError: it cannot be made.
    """
    if output is None or names_a_file(output):
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make folder {output}: {error.strerror or error}") from error
