"""``paragonsr2 export``: a checkpoint to a checked, dynamic ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paragonsr2.cli.options import ScaleOption
from paragonsr2.errors import MissingExtraError


def export(
    model: Annotated[
        Path, typer.Option("--model", "-m", help="A .safetensors or .pth checkpoint.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the ONNX file.")],
    scale: ScaleOption = None,
) -> None:
    """Export a checkpoint to ONNX and prove that it is the same network."""
    try:
        from paragonsr2.export.onnx import export_onnx
        from paragonsr2.weights.store import load_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting", "torch") from error
    from paragonsr2.variants import ARCH_PREFIX

    checkpoint = load_checkpoint(model, scale=scale)
    variant = checkpoint.description.variant
    path = output / f"{ARCH_PREFIX}{variant}_fp32.onnx"
    exported = export_onnx(checkpoint.network, variant, path, training=checkpoint.training)
    for parity in exported.parity:
        print(f"{parity.width:>4} x {parity.height:<4} largest error {parity.max_error:.2e}")
    print(exported.path)
