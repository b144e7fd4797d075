"""A worker: one process somewhere in the cluster that holds an engine and does what it is told.

What it does is what a job on one machine does, by the same functions. Heavy modules are loaded when
the process knows how many cores it may use.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from paragonsr2.errors import (
    BackendError,
    BusyOutputError,
    ClusterError,
    OutputError,
    ParagonError,
)
from paragonsr2.process import set_up_command
from paragonsr2.version import __version__

if TYPE_CHECKING:
    from paragonsr2.clips.damage import Damage
    from paragonsr2.clips.frames import FrameReader
    from paragonsr2.cluster.orders import MadeSegment, Recipe, SegmentOrder, WorkerFacts
    from paragonsr2.upscale.pictures import PictureOptions
    from paragonsr2.upscale.segment import SegmentMaker
    from paragonsr2.upscale.task import Outcome, Task, TaskProgress

# Seconds for which work that was lost waits for the process that had it: a machine that is cut off
# from its cluster may go on for a while, and holds the lock of its file.
_PATIENCE, _GLANCE = 120.0, 0.2

_FOLDERS = "paragonsr2-worker-"

# Answered while the worker is at its work.
_CONTROL = "control"

#: Concurrency groups of the worker, for Ray.
GROUPS = {_CONTROL: 1}


class Worker:
    """Holds an engine.

    Nothing is raised here: whoever asks for the :meth:`facts` learns what is wrong.

    Args:
        recipe: how the engine is opened.
        model: content of the model's file, if its path is not shared.
    """

    def __init__(self, recipe: Recipe, model: bytes | None = None) -> None:
        set_up_command()
        cpus = max(1, round(recipe.cpus))
        os.environ.setdefault("VIPS_CONCURRENCY", str(cpus))
        self._folder = _own_folder()
        self._done = 0.0
        self._clip: _OpenClip | None = None
        self._wrong: ParagonError | None = None
        try:
            self._open(recipe, model, cpus)
        except ParagonError as error:
            self._wrong = error

    def _open(self, recipe: Recipe, model: bytes | None, cpus: int) -> None:
        from paragonsr2.upscale.resources import cores
        from paragonsr2.upscale.upscaler import Upscaler
        from paragonsr2.upscale.video import open_steadier

        name = recipe.model
        if model is not None:
            path = self._folder / Path(name).name
            path.write_bytes(model)
            name = str(path)
        upscaler = Upscaler(name, recipe.scale, **recipe.options)
        # An engine takes all cores of its machine unless it is told to leave some to others.
        parts = max(1, cores() // cpus)
        self._upscaler = (upscaler.divided(parts) if parts > 1 else None) or upscaler
        self._steadier, self._unsteady = open_steadier(recipe.temporal, upscaler.scale)

    # Ray asks again until the worker is there, wherever it is restarted.
    @ray.method(concurrency_group=_CONTROL, max_task_retries=-1)
    def facts(self, probe: Path | None = None, token: str = "") -> WorkerFacts | ParagonError:
        """What this worker is, or why it cannot work.

        Args:
            probe: a file that it must see, if paths are shared.
            token: what is in the file.
        """
        from paragonsr2.cluster.orders import WorkerFacts
        from paragonsr2.upscale.video import steadier_digest

        if self._wrong is not None:
            return self._wrong
        host = socket.gethostname()
        if probe is not None and not _sees(probe, token):
            return ClusterError(
                f"the worker on {host} does not see {probe.parent}, or sees another folder of "
                f"that name; share it at the same path on every machine, or add --ray-transfer"
            )
        return WorkerFacts(
            __version__,
            self._upscaler.facts,
            steadier_digest(self._steadier),
            self._unsteady,
            _node(),
            host,
        )

    @ray.method(concurrency_group=_CONTROL)
    def progress(self) -> float:
        """How far the current work is: the share of a picture, the frames of a segment."""
        return self._done

    def leave(self) -> None:
        """Remove this worker's files; it gets no more work."""
        self._close_clip()
        shutil.rmtree(self._folder, ignore_errors=True)

    def enlarge(
        self, task: Task, options: PictureOptions, tile: int | None, again: bool = False
    ) -> Outcome:
        """Enlarge a picture whose paths are shared.

        Args:
            task: what to read and what to write.
            options: how.
            tile: side of a tile in input pixels; None for the whole image.
            again: another worker was lost while it did this.
        """
        # What the lost worker left is not taken for an earlier result: this job reports it.
        options = replace(options, overwrite=options.overwrite or again)

        def attempt() -> Outcome:
            from paragonsr2.upscale.pictures import enlarge_pictures

            self._done = 0.0
            upscaler = self._upscaler.with_tile(tile)
            (outcome,) = enlarge_pictures([task], upscaler, options, self._note)
            return outcome

        return _patiently(attempt, again)

    def enlarge_bytes(
        self,
        task: Task,
        content: bytes,
        options: PictureOptions,
        tile: int | None,
        again: bool = False,
    ) -> tuple[Outcome, bytes | None]:
        """Enlarge a picture whose bytes are sent.

        Args:
            task: its paths where the job was started; only their names are used.
            content: of the source.
            options: how.
            tile: as in :meth:`enlarge`.
            again: as in :meth:`enlarge`.

        Returns:
            The outcome, and the content of the result if there is one.
        """
        from paragonsr2.upscale.task import Task

        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            here = Task(Path(name, "in", task.source.name), Path(name, "out", task.target.name))
            here.source.parent.mkdir()
            here.source.write_bytes(content)
            outcome = self.enlarge(here, options, tile, again)
            result = here.target.read_bytes() if outcome.status == "done" else None
            message = outcome.message.replace(str(here.source), str(task.source))
            message = message.replace(str(here.target), str(task.target))
            return replace(outcome, source=task.source, target=task.target, message=message), result

    def segment(self, order: SegmentOrder, again: bool = False) -> MadeSegment | ParagonError:  # noqa: ARG002
        """Make one segment of a clip.

        The clip stays open: it is decoded once if its segments come in order.

        Args:
            order: which, and how.
            again: another worker was lost while it did this.
        """
        try:
            return self._segment(order)
        except ParagonError as error:
            if self._clip is not None:
                told = str(error).replace(str(self._clip.path), str(order.clip.path))
                error.args = (told, *error.args[1:])
            self._close_clip()
            return error
        except MemoryError:
            self._close_clip()
            return BackendError("not enough memory; use a smaller --tile")
        except BaseException:
            self._close_clip()
            raise

    def _segment(self, order: SegmentOrder) -> MadeSegment:
        from paragonsr2.clips.segments import write_segment
        from paragonsr2.cluster.orders import MadeSegment

        self._done = 0.0
        first = order.number * order.size
        clip = self._opened(order, first)
        before = clip.maker.repeated
        frames = clip.reader.read(clip.maker.needs(first), first + order.size)
        made = list(clip.maker.make(frames, first, self._count))
        repeated, damage = clip.maker.repeated - before, replace(clip.damage)
        if not made:
            return MadeSegment(0, repeated, None, damage)
        (segment,) = made
        result = order.result or self._folder / f"{order.number:06d}.npz"
        if not result.parent.is_dir():
            raise OutputError(f"{result.parent} is gone: another run has finished the clip")
        write_segment(result, segment.header, segment.packets)
        content = None
        if order.result is None:
            content = result.read_bytes()
            result.unlink()
        return MadeSegment(len(segment.packets), repeated, content, damage)

    def _opened(self, order: SegmentOrder, first: int) -> _OpenClip:
        """The clip of an order, decoded no further than needed."""
        from paragonsr2.clips.damage import Damage
        from paragonsr2.clips.frames import FrameReader
        from paragonsr2.upscale.segment import SegmentMaker

        found = self._clip
        if found is not None and found.key == order.key:
            if found.reader.reaches(found.maker.needs(first)):
                return found
            found.reader.close()
            path = found.path
        else:
            self._close_clip()
            path = self._fetched(order) if order.pieces else order.clip.path
        clip, damage = replace(order.clip, path=path), Damage()
        maker = SegmentMaker(
            clip, order.encoding, self._upscaler, order.tile, self._steadier, order.size
        )
        self._clip = _OpenClip(order.key, path, FrameReader(clip, damage), maker, damage)
        return self._clip

    def _fetched(self, order: SegmentOrder) -> Path:
        """Write the source of an order to a file of this worker's own."""
        path = self._folder / order.clip.path.name
        with path.open("wb") as file:
            for piece in order.pieces:
                file.write(ray.get(piece))
        return path

    def _close_clip(self) -> None:
        if self._clip is not None:
            self._clip.reader.close()
            if self._clip.path.is_relative_to(self._folder):
                self._clip.path.unlink(missing_ok=True)
            self._clip = None

    def _note(self, state: TaskProgress) -> None:
        self._done = state.share

    def _count(self) -> None:
        self._done += 1


@dataclass
class _OpenClip:
    key: str
    path: Path
    reader: FrameReader
    maker: SegmentMaker
    damage: Damage


def _patiently(attempt: Callable[[], Outcome], again: bool) -> Outcome:
    """Enlarge; if it is done again, wait while the process that was lost is still at it."""
    end = time.monotonic() + _PATIENCE
    while True:
        outcome = attempt()
        busy = isinstance(outcome.error, BusyOutputError)
        if not (busy and again) or time.monotonic() > end:
            return outcome
        time.sleep(_GLANCE)


def _sees(probe: Path, token: str) -> bool:
    try:
        return probe.read_text(encoding="utf-8") == token and os.access(probe.parent, os.W_OK)
    except OSError:
        return False


def _node() -> str:
    context: Any = ray.get_runtime_context()
    return str(context.get_node_id())


def _own_folder() -> Path:
    """A folder for this process; those of processes that are no more are removed."""
    import psutil

    beginning = f"{_FOLDERS}{socket.gethostname()}-"
    for path in Path(tempfile.gettempdir()).glob(f"{beginning}*"):
        owner = path.name.removeprefix(beginning).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{beginning}{os.getpid()}-"))
