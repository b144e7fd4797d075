"""The catalogue of bundled weights: what there is, how good it is, and its hashes."""

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

FileKind = Literal["onnx", "onnx_fp16", "safetensors"]


@dataclass(frozen=True)
class Entry:
    """One bundled model.

    Attributes:
        variant: short name.
        scale: 2, 3, 4 or 8.
        kind: what it was trained for: ``fidelity``, ``perceptual`` or ``compressed``.
        licence: of the weights.
        parameters: of the deployed network.
        kmacs_per_pixel: thousand multiply-adds per low-resolution pixel, deployed.
        files: name and sha256 by kind of file.
        training: digest of how it was trained.
        quality: PSNR-Y and SSIM-Y by test set, from the result file.
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


@cache
def entries() -> tuple[Entry, ...]:
    """All bundled models, in the order of the family.

    Raises:
        WeightsError: the catalogue is missing or damaged: the installation is broken.
    """
    try:
        table = json.loads(CATALOGUE.read_text(encoding="utf-8"))
        return tuple(Entry(**row) for row in table["models"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"the catalogue of weights is damaged ({error}); reinstall") from error


def find(model: str, scale: int) -> Entry:
    """The bundled model of a name and scale.

    Args:
        model: a variant, or ``variant:kind`` such as ``stream:compressed``; alone it is the
            fidelity model.
        scale: 2, 3, 4 or 8.

    Raises:
        OptionError: there is no such variant.
        WeightsError: it is not bundled.
    """
    variant, _, kind = model.partition(":")
    try:
        wanted = (variant_name(variant), scale, kind or "fidelity")
    except OptionError as error:
        raise OptionError(
            f"{error}; or bicubic, magic[:ALPHA], or an .onnx, .safetensors or .pth file"
        ) from None
    for entry in entries():
        if (entry.variant, entry.scale, entry.kind) == wanted:
            return entry
    there = ", ".join(f"{e.model} x{e.scale}" for e in entries()) or "none"
    raise WeightsError(
        f"no {kind or 'fidelity'} weights of {wanted[0]} x{scale} are bundled (there are: {there})"
    )


def bundled_path(entry: Entry, kind: FileKind) -> Path:
    """Where a bundled file lies, its hash checked.

    Raises:
        WeightsError: missing or changed.
    """
    bundled_bytes(entry, kind)
    return FOLDER / entry.files[kind]["name"]


def bundled_bytes(entry: Entry, kind: FileKind) -> bytes:
    """The content of a bundled file, its hash checked.

    Raises:
        WeightsError: missing or changed.
    """
    about = entry.files[kind]
    try:
        content = (FOLDER / about["name"]).read_bytes()
    except OSError as error:
        raise WeightsError(f"bundled {about['name']} is missing; reinstall") from error
    if sha256(content) != about["sha256"]:
        raise WeightsError(f"bundled {about['name']} has been changed; reinstall")
    return content
