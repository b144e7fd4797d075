"""Facts about models that several rooms share, and the one schema of what a model file may say.

Nothing heavy is imported here; the command reads these names before it shows its help.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from paragonsr2.errors import WeightsError

#: Number formats that a user can ask for.
Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]

#: Number formats of TensorRT engines.
GraphPrecision = Literal["fp32", "fp16"]

#: Number formats of exported graphs.
ExportPrecision = Literal["fp32", "fp16", "int8"]

#: Engines that a user can ask for.
BackendName = Literal["auto", "onnxruntime", "torch", "openvino", "tensorrt"]

#: Enlargements that an ONNX file of any network may have.
MODEL_SCALES = range(2, 17)

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class TileNeeds:
    """What a network needs of the tiles it is given.

    Attributes:
        halo: input pixels that a tile must see on each side.
        multiple_of: tiles start at multiples of this.
        floats_per_pixel: working memory per input pixel, in numbers.
    """

    halo: int
    multiple_of: int
    floats_per_pixel: int

    def metadata(self) -> dict[str, str]:
        """The entries of a model file from which :func:`read_facts` gets them back."""
        return {
            "tile_halo": str(self.halo),
            "tile_multiple": str(self.multiple_of),
            "floats_per_pixel": str(self.floats_per_pixel),
        }


#: Assumed of ONNX files from elsewhere, which do not say what they need.
UNKNOWN_NEEDS = TileNeeds(halo=32, multiple_of=1, floats_per_pixel=1024)


@dataclass(frozen=True)
class Facts:
    """What the metadata of a model file says; each entry is checked against its range.

    Attributes:
        needs: of tiles; cautious ones where the file states none.
        scale: 2..16; None if the file does not say.
        variant: name of the network, unchecked; None if the file does not say.
        upsampler_alpha: 0..1; None if the file does not say.
        parameters: number of parameters; None if the file does not say.
        kmacs_per_pixel: thousand multiply-adds per input pixel; None if the file does not say.
        training: summary of the training; empty if the file does not say.
    """

    needs: TileNeeds
    scale: int | None = None
    variant: str | None = None
    upsampler_alpha: float | None = None
    parameters: int | None = None
    kmacs_per_pixel: float | None = None
    training: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_facts(metadata: Mapping[str, str], label: str) -> Facts:
    """Read what a model file says about itself.

    Args:
        metadata: of the model file.
        label: name of the model, for the message.

    Raises:
        WeightsError: an entry is not of its type, or outside of its range.
    """

    def number(key: str, kind: Callable[[str], Number], low: Number, high: Number) -> Number | None:
        if key not in metadata:
            return None
        text = metadata[key]
        try:
            value = kind(text)
        except ValueError:
            value = kind("-1")
        if not low <= value <= high:
            raise WeightsError(
                f"{label}: its metadata is damaged: {key} is {_short(text)}, and must be a number "
                f"from {low} to {high}"
            )
        return value

    scale = number("scale", int, MODEL_SCALES[0], MODEL_SCALES[-1])
    halo = number("tile_halo", int, 0, 4096)
    multiple = number("tile_multiple", int, 1, 1024)
    floats = number("floats_per_pixel", int, 1, 1 << 20)
    return Facts(
        needs=TileNeeds(
            halo=UNKNOWN_NEEDS.halo if halo is None else halo,
            multiple_of=multiple or UNKNOWN_NEEDS.multiple_of,
            floats_per_pixel=floats or UNKNOWN_NEEDS.floats_per_pixel,
        ),
        scale=scale,
        variant=metadata.get("variant"),
        upsampler_alpha=number("upsampler_alpha", float, 0.0, 1.0),
        parameters=number("parameters", int, 0, 10**12),
        kmacs_per_pixel=number("kmacs_per_pixel", float, 0.0, 1e12),
        training=_training(metadata.get("training", "{}"), label),
    )


def _training(text: str, label: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise WeightsError(f"{label}: its metadata 'training' is not JSON: {why}") from error
    if not isinstance(found, dict):
        raise WeightsError(
            f"{label}: its metadata 'training' is {_short(text)}, and must be a table"
        )
    return cast(dict[str, Any], found)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
