"""Facts about models that several rooms share: their number formats, engines and tile needs.

Nothing heavy is imported here; the command reads these names before it shows its help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from paragonsr2.errors import WeightsError

#: Number formats that a user can ask for.
Precision = Literal["auto", "fp32", "fp16", "bf16"]

#: Number formats of exported graphs and of TensorRT engines.
GraphPrecision = Literal["fp32", "fp16"]

#: Engines that a user can ask for.
BackendName = Literal["auto", "onnxruntime", "torch", "openvino", "tensorrt"]


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
        """The entries of a model file from which :func:`read_tile_needs` gets them back."""
        return {
            "tile_halo": str(self.halo),
            "tile_multiple": str(self.multiple_of),
            "floats_per_pixel": str(self.floats_per_pixel),
        }


#: Assumed of ONNX files from elsewhere, which do not say what they need.
UNKNOWN_NEEDS = TileNeeds(halo=32, multiple_of=1, floats_per_pixel=1024)


def read_tile_needs(metadata: Mapping[str, str], label: str) -> TileNeeds:
    """The tile needs that a model file states, or cautious ones where it states none.

    Args:
        metadata: of the model file.
        label: name of the model, for the message.

    Raises:
        WeightsError: an entry is not a number.
    """
    entries = {**UNKNOWN_NEEDS.metadata(), **metadata}
    try:
        return TileNeeds(
            halo=int(entries["tile_halo"]),
            multiple_of=int(entries["tile_multiple"]),
            floats_per_pixel=int(entries["floats_per_pixel"]),
        )
    except ValueError as error:
        raise WeightsError(f"{label}: its metadata is damaged: {error}") from error
