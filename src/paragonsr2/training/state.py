"""The state of a run on disk: whole, for an identical continuation, or small enough to keep."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from paragonsr2.errors import TrainingError
from paragonsr2.files import write_atomic
from paragonsr2.training.journal import TRAINING_FILE, VALIDATION_FILE

STATE_FILE = "last.state"
BEST_FILE = "best.safetensors"
#: Files of a run's folder that go with a packed state.
RECORDS = (BEST_FILE, TRAINING_FILE, VALIDATION_FILE)
# What optimisers remember of each parameter.
_MOMENTS = {"exp_avg", "exp_avg_sq", "momentum"}


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a run into its folder, atomically.

    Raises:
        OutputError: it cannot be written; an older state is intact.
    """
    write_atomic(folder / STATE_FILE, _saved(state))


def read_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a state.

    Raises:
        TrainingError: it is damaged, or no state.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        _ = state["step"], state["digest"]
    except (
        OSError,
        pickle.UnpicklingError,
        LookupError,
        TypeError,
        RuntimeError,
        EOFError,
    ) as error:
        raise TrainingError(f"{path} is no readable training state: {error}") from error
    return cast(dict[str, Any], state)


def pack(folder: Path, files: Sequence[str] = RECORDS) -> bytes:
    """The state of the run in ``folder`` in one small file, with its records and best weights.

    The optimisers' moments are rounded to bfloat16, which halves them: a run that goes on from
    here is as good as the uninterrupted one, but not the same to the bit.

    Args:
        folder: of the run.
        files: names in it that go along; those that are not there are left out.

    Raises:
        TrainingError: there is no readable state.
    """
    state = read_state(folder / STATE_FILE)
    for optimizer in state["optimizers"]:
        for moments in optimizer["state"].values():
            for name in _MOMENTS & moments.keys():
                moments[name] = moments[name].bfloat16()
    state["files"] = {
        name: torch.frombuffer(bytearray((folder / name).read_bytes()), dtype=torch.uint8)
        for name in files
        if (folder / name).exists()
    }
    return _saved(state)


def unpack(packed: Path, folder: Path) -> int:
    """Lay out in ``folder`` the run that :func:`pack` made a file of, ready to be resumed.

    Returns:
        The number of steps that it has done.

    Raises:
        TrainingError: ``packed`` is damaged, or no packed state.
        OutputError: ``folder`` cannot be written.
    """
    state = read_state(packed)
    files = cast(dict[str, Tensor] | None, state.pop("files", None))
    if files is None:
        raise TrainingError(f"{packed} is no packed state; resume it where it lies")
    for name, content in files.items():
        if Path(name).name != name:
            raise TrainingError(f"{packed} would write {name} outside of {folder}")
        write_atomic(folder / name, content.numpy().tobytes())
    # Last, because a folder with a state is one to resume.
    write_state(folder, state)
    return int(state["step"])


def _saved(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()
