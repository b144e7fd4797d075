"""The catalogue of bundled weights: which models there are, how good they are, their hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from paragonsr2.errors import OptionError, WeightsError
from paragonsr2.files import sha256
from paragonsr2.variants import variant_name

FOLDER = Path(__file__).parent / "files"
CATALOGUE = FOLDER / "catalogue.json"

FileKind = Literal["onnx", "onnx_fp16", "onnx_int8", "safetensors"]


@dataclass(frozen=True)
class ModelFile:
    """A file that holds a model.

    Attributes:
        path: where it is.
        sha256: what a bundled file must have; empty for a user's own file.
        trusted: open a user's own file without limits, as a bundled one.
    """

    path: Path
    sha256: str = ""
    trusted: bool = False

    @property
    def needs_limits(self) -> bool:
        """Whether the file is a stranger's, for all that is known."""
        return not (self.sha256 or self.trusted)

    def read(self) -> bytes:
        """The content; a bundled file is checked against its hash.

        An ONNX model that is handed on as bytes cannot read files beside it.

        Raises:
            WeightsError: the file is missing, unreadable, or bundled and changed.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            if self.sha256:
                raise WeightsError(f"bundled {self.path.name} is missing; reinstall") from error
            raise WeightsError(f"cannot read {self.path}: {error.strerror or error}") from error
        if self.sha256 and sha256(content) != self.sha256:
            raise WeightsError(f"bundled {self.path.name} has been changed; reinstall")
        return content

    @property
    def digest(self) -> str:
        """The SHA-256 of the content.

        Raises:
            WeightsError: the file cannot be read.
        """
        return self.sha256 or sha256(self.read())


@dataclass(frozen=True)
class Entry:
    """One bundled model.

    Attributes:
        variant: short name.
        scale: 2, 3, 4 or 8.
        kind: what it was trained for, such as ``fidelity``, ``perceptual`` or ``compressed``.
        licence: of the weights.
        parameters: number of parameters of the deployed network.
        kmacs_per_pixel: thousand multiply-adds per low-resolution pixel, deployed.
        files: name and SHA-256 by kind of file.
        training: summary of how it was trained.
        quality: PSNR-Y in dB and SSIM-Y by test set, from the result file.
    """

    variant: str
    scale: int
    kind: str
    licence: str
    parameters: int
    kmacs_per_pixel: float
    files: Mapping[str, Mapping[str, str]]
    training: Mapping[str, Any]
    quality: Mapping[str, Mapping[str, float]]

    @property
    def model(self) -> str:
        """What ``--model`` takes, such as ``realtime`` or ``stream:compressed``."""
        return self.variant if self.kind == "fidelity" else f"{self.variant}:{self.kind}"

    @property
    def name(self) -> str:
        """Such as ``paragonsr2_realtime_x2_fidelity``."""
        return f"paragonsr2_{self.variant}_x{self.scale}_{self.kind}"

    def file(self, kind: FileKind) -> ModelFile:
        """One of the model's files."""
        about = self.files[kind]
        return ModelFile(FOLDER / about["name"], about["sha256"])


@cache
def entries() -> tuple[Entry, ...]:
    """All bundled models, in the order of the family.

    Raises:
        WeightsError: the catalogue is missing or damaged, so the installation is broken.
    """
    try:
        table = json.loads(CATALOGUE.read_text(encoding="utf-8"))
        return tuple(Entry(**row) for row in table["models"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"the catalogue of weights is damaged ({error}); reinstall") from error


def find(model: str, scale: int) -> Entry:
    """Look up a bundled model by name and scale.

    Args:
        model: a variant, or ``variant:kind`` such as ``stream:compressed``; a variant alone is
            the fidelity model.
        scale: 2, 3, 4 or 8.

    Raises:
        OptionError: there is no such variant.
        WeightsError: no such model is bundled.
    """
    variant, _, kind = model.partition(":")
    try:
        wanted = (variant_name(variant), scale, kind or "fidelity")
    except OptionError as error:
        raise OptionError(
            f"{error}, bicubic, magic[:ALPHA], or an .onnx, .engine, .safetensors or .pth file"
        ) from None
    for entry in entries():
        if (entry.variant, entry.scale, entry.kind) == wanted:
            return entry
    there = ", ".join(f"{e.model} x{e.scale}" for e in entries()) or "none"
    raise WeightsError(
        f"no {kind or 'fidelity'} weights of {wanted[0]} x{scale} are bundled; choose from: {there}"
    )


def bundled_path(entry: Entry, kind: FileKind) -> Path:
    """The path of a bundled file, whose hash has been checked.

    Raises:
        WeightsError: missing or changed.
    """
    file = entry.file(kind)
    file.read()
    return file.path


def bundled_bytes(entry: Entry, kind: FileKind) -> bytes:
    """The content of a bundled file, whose hash has been checked.

    Raises:
        WeightsError: missing or changed.
    """
    return entry.file(kind).read()
