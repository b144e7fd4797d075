"""What a run says about itself: one line of JSON per report, and TensorBoard."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import OutputError
from paragonsr2.files import write_atomic

TRAINING_FILE = "training.jsonl"
VALIDATION_FILE = "validation.jsonl"
#: Side of the crops that are shown of validation pictures, in output pixels.
SHOWN = 192


@dataclass(frozen=True)
class Shown:
    """A crop of a validation picture, ``(h, w, 3)`` uint8 each.

    Attributes:
        name: of the picture.
        plain: the low-resolution crop, each pixel a square.
        sr: what the network made of it.
        hr: the truth.
    """

    name: str
    plain: Pixels8
    sr: Pixels8
    hr: Pixels8


def liveliest(hr: Pixels8, scale: int) -> tuple[slice, slice]:
    """Where a crop of at most :data:`SHOWN` shows most: the largest mean gradient.

    Args:
        hr: ``(H, W, 3)``.
        scale: the corner falls on a multiple of it.
    """
    side = SHOWN // scale * scale
    height, width = (min(side, length) for length in hr.shape[:2])
    luma = hr.mean(axis=2)
    rough = np.abs(np.diff(luma, axis=0))[:, :-1] + np.abs(np.diff(luma, axis=1))[:-1]
    best, corner = -1.0, (0, 0)
    for top in range(0, hr.shape[0] - height + 1, side // 2 // scale * scale):
        for left in range(0, hr.shape[1] - width + 1, side // 2 // scale * scale):
            lively = float(rough[top : top + height, left : left + width].mean())
            if lively > best:
                best, corner = lively, (top, left)
    top, left = corner
    return slice(top, top + height), slice(left, left + width)


class Journal:
    """The records of a run in its folder.

    Args:
        folder: the run's output.
        step: records after this step are dropped: those steps will be run again.

    Raises:
        OutputError: here and in every method that records: the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self._forget_after(step)
        self.board = _Board(folder / "tensorboard", step)

    def training(self, step: int, values: Mapping[str, float]) -> None:
        """Record the means since the last report."""
        self._record(TRAINING_FILE, "train", step, values)

    def validation(self, step: int, values: Mapping[str, float], shown: list[Shown]) -> None:
        """Record a validation and show crops of it."""
        self._record(VALIDATION_FILE, "val", step, values)
        self.board.write(
            step,
            [
                summary.image(f"val/{crop.name}", _beside_each_other(crop), dataformats="HWC")
                for crop in shown
            ],
        )

    def read(self, name: str) -> list[dict[str, Any]]:
        """All records of :data:`TRAINING_FILE` or :data:`VALIDATION_FILE`, oldest first."""
        path = self.folder / name
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def _record(self, name: str, group: str, step: int, values: Mapping[str, float]) -> None:
        path = self.folder / name
        with _told(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        scalars = [summary.scalar(f"{group}/{key}", value) for key, value in values.items()]
        self.board.write(step, scalars)

    def _forget_after(self, step: int) -> None:
        for name in (TRAINING_FILE, VALIDATION_FILE):
            path = self.folder / name
            if not path.exists():
                continue
            kept: list[str] = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except ValueError:
                    break  # a line that a kill cut off; nothing after it is older
            write_atomic(path, "".join(kept).encode())


class _Board:
    """TensorBoard's records, written at once.

    Its own writer works in a thread, which on a full disk prints a traceback and takes the
    reason with it.

    Args:
        folder: of the files.
        step: what older files say of later steps is void.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # Generated code, of which no types are known.
        self._proto: Any = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
        start = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._append(
            self._event(file_version="brain.Event:2"), self._event(step=step, session_log=start)
        )

    def write(self, step: int, summaries: Sequence[Any]) -> None:
        """Append summaries of ``step``."""
        self._append(*(self._event(step=step, summary=one) for one in summaries))

    def _event(self, **content: Any) -> Any:
        return self._proto.Event(wall_time=time.time(), **content)

    def _append(self, *events: Any) -> None:
        with _told(self._path), self._path.open("ab") as file:
            for event in events:
                RecordWriter(file).write(event.SerializeToString())


@contextlib.contextmanager
def _told(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _beside_each_other(crop: Shown) -> Pixels8:
    return np.concatenate([crop.plain, crop.sr, crop.hr], axis=1)
