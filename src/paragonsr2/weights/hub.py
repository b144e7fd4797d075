"""Models in folders: a local one, or a repository of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from paragonsr2.errors import MissingExtraError, WeightsError

#: Kinds of files that are looked for, best first. Pickles of strangers are not among them.
_PATTERNS = ("*_fp32.onnx", "*.onnx", "*.safetensors")


def is_repository(name: str) -> bool:
    """Whether ``name`` looks like a repository of the hub, ``owner/name``, and is no local path."""
    owner, slash, repository = name.partition("/")
    return bool(owner and slash and repository) and "/" not in repository


def download(name: str, revision: str | None = None) -> Path:
    """Fetch the models of a repository; files that are in the local cache are not fetched again.

    Args:
        name: ``owner/name``.
        revision: branch, tag or commit; None takes the main branch.

    Returns:
        The folder with the files.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        WeightsError: the repository cannot be read.
    """
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError:
        raise MissingExtraError("a model of the Hugging Face hub", "hub") from None
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=list(_PATTERNS))
    except Exception as error:  # the hub, its cache and the network raise unrelated types
        reason = " ".join(str(error).split())
        raise WeightsError(f"{name} cannot be fetched from the hub: {reason[:200]}") from error
    return Path(folder)


def choose(folder: Path, filename: str | None = None) -> Path:
    """The model file of a folder.

    Args:
        folder: that holds it.
        filename: of the model; None takes the only one, and float32 ONNX before other kinds.

    Raises:
        WeightsError: there is none, or there are several.
    """
    if filename is not None:
        path = folder / filename
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise WeightsError(f"{folder} has no {filename}; it has {_names(folder)}")
        return path
    for pattern in _PATTERNS:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise WeightsError(f"{folder} has several models; name one: {_names(folder)}")
    raise WeightsError(f"{folder} has no model; there should be an .onnx or .safetensors file")


def _names(folder: Path) -> str:
    found = {path.name for pattern in _PATTERNS for path in folder.glob(pattern)}
    return ", ".join(sorted(found)) or "no model"
