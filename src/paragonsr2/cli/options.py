"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from paragonsr2.weights.metadata import BackendName, Precision

MODEL_HELP = (
    "realtime, stream, photo or pro; stream:compressed; bicubic or magic[:ALPHA]; "
    "or an .onnx, .engine, .safetensors or .pth file."
)

ModelOption = Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)]
ScaleOption = Annotated[
    int | None,
    typer.Option("--scale", "-s", help="2, 3, 4 or 8. Default: 2, or a file's own."),
]
BackendOption = Annotated[BackendName, typer.Option(help="Engine that runs the network.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
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
