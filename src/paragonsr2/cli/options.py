"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from paragonsr2.errors import UsageError
from paragonsr2.weights.metadata import BackendName, Precision

if TYPE_CHECKING:
    from paragonsr2.upscale.upscaler import TileOption as TileValue

MODEL_HELP = (
    "realtime, stream, photo or pro; stream:compressed; bicubic or magic[:ALPHA]; "
    "or an .onnx, .engine, .safetensors or .pth file."
)

ModelOption = Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)]
PurposeOption = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="WORD",
        help="Choose the model by purpose: faithful, restore, video, crisp or drawing. "
        "See paragonsr2 models.",
    ),
]
StrengthOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="How far to go from the faithful model (0) to one of another kind (1), such as crisp.",
    ),
]
ScaleOption = Annotated[
    int | None,
    typer.Option("--scale", "-s", help="2, 3, 4 or 8. Default: 2, or a file's own."),
]
BackendOption = Annotated[BackendName, typer.Option(help="Engine that runs the network.")]
DeviceOption = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N; cuda:0,cuda:1 share the work.")
]
PrecisionOption = Annotated[Precision, typer.Option(help="Number format of the network.")]
EnsembleOption = Annotated[
    bool,
    typer.Option("--ensemble", help="Average over 8 mirror images: better, at 8 times the cost."),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-model",
        help="Open a model file of your own without limits of memory, time and operators.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
TileOption = Annotated[
    str,
    typer.Option(help="Side of a tile in input pixels; auto fits it to the memory, off disables."),
]


def tile_of(text: str) -> TileValue:
    """The value of ``--tile``.

    Raises:
        UsageError: it is neither a word nor a number.
    """
    if text in ("auto", "off"):
        return text
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--tile {text}: use auto, off or a number of at least 16") from None
