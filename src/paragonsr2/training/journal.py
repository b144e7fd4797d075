"""The records of a run: one line of JSON per report, and TensorBoard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch.utils.tensorboard.writer import SummaryWriter

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import OutputError
from paragonsr2.files import write_atomic

TRAINING_FILE = "training.jsonl"
VALIDATION_FILE = "validation.jsonl"
#: Side of the crops of validation pictures that are shown, in output pixels.
SHOWN = 192


@dataclass(frozen=True)
class Shown:
    """A crop of a validation picture, ``(h, w, 3)`` uint8 each.

    Attributes:
        name: of the picture.
        plain: the low-resolution crop, each pixel enlarged to a square.
        sr: the network's output.
        hr: the original.
    """

    name: str
    plain: Pixels8
    sr: Pixels8
    hr: Pixels8


def liveliest(hr: Pixels8, scale: int) -> tuple[slice, slice]:
    """The most detailed window of at most :data:`SHOWN` pixels a side: the largest mean gradient.

    Args:
        hr: ``(H, W, 3)``.
        scale: the window's corner and side are multiples of it.
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
    """The records of a run in its folder; a context manager that closes them.

    Args:
        folder: the run's output.
        step: where the run starts; records after this step are dropped, for those steps run
            again.

    Raises:
        OutputError: here and in every method that records: the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self._forget_after(step)
        self._board_folder = folder / "tensorboard"
        with _writing(self._board_folder):
            # TensorBoard drops what older files hold from ``purge_step`` on.
            self._board = SummaryWriter(str(self._board_folder), purge_step=step + 1)

    def __enter__(self) -> Self:
        """Nothing to do: the files are open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close TensorBoard's file and end its thread."""
        # SummaryWriter.close does not wait for its thread once that has failed.
        writer = self._board.file_writer
        with contextlib.suppress(OSError):  # every record was flushed, or its error was raised
            if writer is not None:
                writer.close()

    def training(self, step: int, values: Mapping[str, float]) -> None:
        """Record the means since the last report."""
        self._record(TRAINING_FILE, "train", step, values, [])

    def validation(self, step: int, values: Mapping[str, float], shown: Sequence[Shown]) -> None:
        """Record a validation with crops of its pictures."""
        self._record(VALIDATION_FILE, "val", step, values, shown)

    def read(self, name: str) -> list[dict[str, Any]]:
        """All records of :data:`TRAINING_FILE` or :data:`VALIDATION_FILE`, oldest first."""
        path = self.folder / name
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def _record(
        self,
        name: str,
        group: str,
        step: int,
        values: Mapping[str, float],
        shown: Sequence[Shown],
    ) -> None:
        path = self.folder / name
        with _writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        with _writing(self._board_folder):
            for key, value in values.items():
                self._board.add_scalar(f"{group}/{key}", value, step)
            for crop in shown:
                tag, pixels = f"{group}/{crop.name}", _side_by_side(crop)
                self._board.add_image(tag, pixels, step, dataformats="HWC")
            self._board.flush()

    def _forget_after(self, step: int) -> None:
        for name in (TRAINING_FILE, VALIDATION_FILE):
            path = self.folder / name
            if not path.exists():
                continue
            kept: list[str] = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    # The record of step 0 is made again, too.
                    if 0 < step >= json.loads(line)["step"]:
                        kept.append(line + "\n")
                except ValueError:
                    break  # a line that a kill cut off; nothing after it is older
            write_atomic(path, "".join(kept).encode())


@contextlib.contextmanager
def _writing(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _side_by_side(crop: Shown) -> Pixels8:
    return np.concatenate([crop.plain, crop.sr, crop.hr], axis=1)
