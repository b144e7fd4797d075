"""Reading the tensors of a pickled checkpoint (``.pth``), and refusing all else that it may hold.

PyTorch's own reader, restricted to tensors, runs no code of the file. But the file says how large
its tensors are, and a view of one number can claim to be a million by a million.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from paragonsr2.errors import OutputError, WeightsError
from paragonsr2.weights.limited import TRUST, answer, run_limited, too_much_memory

WRAPPERS = (
    "params_ema",
    "params-ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
)

# An archive may unpack to this many times its size; weights hardly compress.
_MOST_EXPANSION, _SMALL = 4, 1 << 26


def read_pickled(path: Path, *, trusted: bool = False) -> dict[str, Tensor]:
    """Read the bare tensors of a pickled checkpoint.

    The file is unpacked in a limited process, and this one reads what came of it.

    Args:
        path: ``*.pth``, ``*.pt`` or ``*.ckpt``.
        trusted: unpack it in this process, without limits; its code does not run even so.

    Returns:
        Tensors by name, without wrappers and ``module.`` prefixes.

    Raises:
        WeightsError: the file holds anything but tensors, is damaged, or exceeds a limit.
        OutputError: there is no room for temporary files.
    """
    if trusted:
        return unpack(path)
    try:
        with tempfile.TemporaryDirectory(prefix="paragonsr2-") as folder:
            plain = Path(folder) / "tensors.safetensors"
            run_limited(__name__, str(path), str(plain), label=path.name)
            with safe_open(plain, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise _no_room(path, error.strerror or str(error)) from error


def unpack(path: Path) -> dict[str, Tensor]:
    """The same in this process, without limits of memory and time; see :func:`read_pickled`."""
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path.name} is refused: it holds more than tensors, or is damaged; "
            "convert it to safetensors with the program that wrote it"
        ) from error
    except MemoryError as error:
        raise WeightsError(too_much_memory(path.name)) from error
    except Exception as error:  # damage makes PyTorch's reader raise nearly anything
        if "allocate memory" in str(error):
            raise WeightsError(too_much_memory(path.name)) from error
        raise WeightsError(f"{path.name} is not a readable checkpoint") from error
    return _unwrap(loaded, path)


def _check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to much more than its size."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # the older form, which is no archive
    if claimed > max(_MOST_EXPANSION * size, _SMALL):
        raise WeightsError(
            f"{path.name} has {size / 1e6:.0f} MB and unpacks to {claimed / 1e6:.0f} MB; "
            f"weights do not compress like that. {TRUST}"
        )


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(cast(Any, loaded).get(key), dict):
            loaded = cast(object, cast(Any, loaded)[key])
            break
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path.name} holds no table of tensors")
    table = cast(dict[object, object], loaded)
    state: dict[str, Tensor] = {}
    for key, value in table.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path.name}: entry {str(key)[:60]!r} is not a tensor")
        state[key.removeprefix("module.")] = _plain(value, key, path)
    return state


def _plain(tensor: Tensor, key: str, path: Path) -> Tensor:
    """A tensor of its own memory, all of which the file holds."""
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not dense or tensor.is_quantized or tensor.is_complex():
        raise WeightsError(f"{path.name}: {key[:60]} is not a dense tensor of real numbers")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise WeightsError(
            f"{path.name}: {key[:60]} claims {tensor.numel()} numbers, and the file does not hold "
            "as many; get the file again"
        )
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _write_plain(path: Path, plain: Path) -> None:
    state = unpack(path)
    try:
        save_file(state, plain)
    except (SafetensorError, OSError) as error:
        raise _no_room(path, str(error)) from error


def _no_room(path: Path, why: str) -> OutputError:
    return OutputError(
        f"{path.name} cannot be unpacked into the temporary folder: {why}; make room there, or "
        f"name another one in TMPDIR. {TRUST}"
    )


if __name__ == "__main__":
    answer(lambda: _write_plain(Path(sys.argv[1]), Path(sys.argv[2])))
