"""The state of a run on disk: whole, for an identical continuation, or packed small."""

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
#: Files of a run's folder that a packed state includes.
RECORDS = (BEST_FILE, TRAINING_FILE, VALIDATION_FILE)
# What optimisers keep for each parameter.
_MOMENTS = {"exp_avg", "exp_avg_sq", "momentum"}


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a run into its folder, atomically.

    Raises:
        OutputError: it cannot be written; the previous state is intact.
    """
    write_atomic(folder / STATE_FILE, _saved(state))


def read_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a state.

    Raises:
        TrainingError: it is damaged, or is not a state.
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
        raise TrainingError(f"{path} is not a readable training state: {error}") from error
    return cast(dict[str, Any], state)


def pack(folder: Path, files: Sequence[str] = RECORDS) -> bytes:
    """Pack the run in ``folder`` into one small file: state, records and best weights.

    The optimisers' moments are rounded to bfloat16, which halves them: a run that continues from
    here is as good as the uninterrupted one, but not bit-identical.

    Args:
        folder: of the run.
        files: names of the files in it to include; missing ones are skipped.

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
    """Unpack a file of :func:`pack` into ``folder``, ready to be resumed.

    Returns:
        Number of steps the run has done.

    Raises:
        TrainingError: ``packed`` is damaged, or is not a packed state.
        OutputError: ``folder`` cannot be written.
    """
    state = read_state(packed)
    files = cast(dict[str, Tensor] | None, state.pop("files", None))
    if files is None:
        raise TrainingError(f"{packed} is not a packed state; resume it in its own folder")
    for name, content in files.items():
        if Path(name).name != name:
            raise TrainingError(f"{packed} would write {name} outside {folder}")
        write_atomic(folder / name, content.numpy().tobytes())
    # Last: a folder with a state counts as a run to resume.
    write_state(folder, state)
    return int(state["step"])


def _saved(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()
