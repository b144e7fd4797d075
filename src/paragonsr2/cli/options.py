"""Options that several verbs share."""

from __future__ import annotations

import enum
from typing import Annotated

import typer


class BackendChoice(enum.StrEnum):
    """Engines."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    torch = "torch"
    openvino = "openvino"
    tensorrt = "tensorrt"


class PrecisionChoice(enum.StrEnum):
    """Number formats."""

    auto = "auto"
    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


MODEL_HELP = (
    "realtime, stream, photo or pro; stream:compressed; bicubic or magic[:ALPHA]; "
    "or an .onnx, .engine, .safetensors or .pth."
)

ModelOption = Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)]
ScaleOption = Annotated[
    int | None, typer.Option("--scale", "-s", help="2, 3, 4 or 8; a model file knows its own.")
]
BackendOption = Annotated[BackendChoice, typer.Option(help="Engine to run the network in.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[PrecisionChoice, typer.Option(help="Number format.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
