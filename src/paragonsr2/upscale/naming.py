"""Finding the input files of a job and naming their outputs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from paragonsr2.clips.container import VIDEO_SUFFIXES, is_video
from paragonsr2.clips.plan import CONTAINERS, target_suffix
from paragonsr2.clips.segments import is_work
from paragonsr2.errors import InputError, OutputError, UsageError
from paragonsr2.files import is_temporary
from paragonsr2.images.formats import READABLE, WRITABLE, format_of, kept_suffix
from paragonsr2.upscale.task import Task


@dataclass(frozen=True)
class _Found:
    """An input file.

    Attributes:
        source: the file.
        place: its path below the folder that was searched.
        searched: it was found in a folder, and not named by the user.
    """

    source: Path
    place: Path
    searched: bool = False


def plan_tasks(
    inputs: Sequence[str],
    output: str | os.PathLike[str] | None,
    scale: int,
    image_format: str = "keep",
    suffix: str | None = None,
) -> list[Task]:
    """Find the input files and name their outputs.

    Without ``output``, the result of ``name.png`` is ``name_x2.png`` beside it. In an output
    folder a result keeps its name and its place in the tree. Results of an earlier run that lie in
    a searched folder are not taken as inputs.

    Args:
        inputs: files, folders (searched recursively) and glob patterns.
        output: a file for a single input, a folder, or None.
        scale: enlargement, for the names.
        image_format: ``keep``, or a key of :data:`~paragonsr2.images.formats.WRITABLE`.
        suffix: appended to the names; None means ``_x2`` beside the input and nothing in a folder.

    Raises:
        InputError: an input does not exist, or no input contains an image or video.
        UsageError: there is one output file for several inputs, an output is also an input, two
            inputs have the same output, or a format or suffix cannot be used.
    """
    if image_format != "keep" and image_format not in WRITABLE:
        raise UsageError(f"this libvips was built without {image_format}; use another --format")
    if suffix is not None and Path(f"x{suffix}").name != f"x{suffix}":
        raise UsageError(f"--suffix {suffix} would lead to another folder; use letters and digits")
    as_file = output is not None and is_file_name(output)
    folder = None if output is None else Path(output)
    found = list(_find(inputs, folder))
    targets = [
        folder if as_file and folder else _target(one, folder, scale, image_format, suffix)
        for one in found
    ]
    appended = suffix != "" if output is None else bool(suffix)
    if appended and not as_file:
        made = {target.resolve() for target in targets}
        kept = [not one.searched or one.source.resolve() not in made for one in found]
        found = [one for one, keep in zip(found, kept, strict=True) if keep]
        targets = [target for target, keep in zip(targets, kept, strict=True) if keep]
    if not found:
        raise InputError("the inputs contain no image and no video")
    if as_file and len(found) > 1:
        raise UsageError(f"{output} is one file, but there are {len(found)} inputs; give a folder")
    tasks = [Task(one.source, target) for one, target in zip(found, targets, strict=True)]
    if as_file:
        _check_file_output(tasks[0], image_format)
    _check_distinct(tasks)
    return tasks


def is_file_name(output: str | os.PathLike[str]) -> bool:
    """Whether an output stands for a file: it has a suffix and is not an existing folder.

    A separator at its end makes it a folder in any case.
    """
    text = os.fspath(output)
    if text.endswith(("/", os.sep)):
        return False
    return bool(Path(text).suffix) and not Path(text).is_dir()


def prepare_output(output: str | os.PathLike[str] | None) -> None:
    """Create the output folder before any work is done for it.

    Raises:
        OutputError: it cannot be created.
    """
    if output is None or is_file_name(output):
        return
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create folder {output}: {error.strerror or error}") from error


def _target(
    one: _Found, output: Path | None, scale: int, image_format: str, suffix: str | None
) -> Path:
    source = one.source
    if is_video(source):
        ending = target_suffix(source)
    elif image_format == "keep":
        ending = kept_suffix(source)
    else:
        ending = WRITABLE[image_format].suffixes[0]
    appended = f"_x{scale}" if suffix is None and output is None else suffix or ""
    folder = source.parent if output is None else (output / one.place).parent
    return folder / f"{source.stem}{appended}{ending}"


def _check_file_output(task: Task, image_format: str) -> None:
    """Refuse an output file whose suffix does not fit the input.

    Raises:
        UsageError: naming the suffixes that do.
    """
    suffix = task.target.suffix
    if is_video(task.source):
        kind, known = "video", list(CONTAINERS)
    else:
        kind, known = "image", [ending for form in WRITABLE.values() for ending in form.suffixes]
    if suffix.lower() not in known:
        raise UsageError(
            f"cannot write '{suffix}' as {kind}; use one of {' '.join(sorted(known))}, or "
            f"-o {task.target}{os.sep} for a folder of this name"
        )
    if kind == "image" and image_format not in ("keep", format_of(task.target)):
        raise UsageError(f"-o {task.target} contradicts --format {image_format}; give one of them")


def _check_distinct(tasks: Sequence[Task]) -> None:
    """Refuse outputs that are inputs, and inputs that share an output."""
    sources = {task.source.resolve() for task in tasks}
    owners: dict[Path, Path] = {}
    for task in tasks:
        key = task.target.resolve()
        if key in sources:
            raise UsageError(f"{task.target} is also an input; use another -o or --suffix")
        if key in owners:
            raise UsageError(f"{owners[key]} and {task.source} would both become {task.target}")
        owners[key] = task.source


def _find(inputs: Sequence[str], output: Path | None) -> Iterator[_Found]:
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if _is_input(file) and not _lies_below(file, output, path):
                    yield _Found(file, file.relative_to(path), searched=True)
        elif path.exists():
            yield _Found(path, Path(path.name))
        else:
            matches = sorted(glob.glob(text, recursive=True))
            if not matches:
                raise InputError(f"{text} does not exist")
            yield from _find(matches, output)


def _is_input(path: Path) -> bool:
    known = path.suffix.lower() in READABLE | VIDEO_SUFFIXES
    return known and path.is_file() and not is_temporary(path) and not is_work(path)


def _lies_below(file: Path, output: Path | None, searched: Path) -> bool:
    """Whether ``file`` is in an output folder that is itself inside the searched folder."""
    if output is None:
        return False
    folder = output.resolve()
    return searched.resolve() in folder.parents and folder in file.resolve().parents
