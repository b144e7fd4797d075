"""``paragonsr2 export``: checked, dynamic ONNX files from a checkpoint."""

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
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the files and the report.")
    ],
    scale: ScaleOption = None,
    arch: Annotated[
        str | None,
        typer.Option(help="Expected variant, such as paragonsr2_photo."),
    ] = None,
    val_dir: Annotated[
        Path | None, typer.Option(help="Folder of images to check with as well.")
    ] = None,
    upsampler_alpha: Annotated[
        float | None, typer.Option(help="Base path, if the checkpoint does not state it.")
    ] = None,
    opset: Annotated[int, typer.Option(help="ONNX opset: 18 or 20.")] = 18,
) -> None:
    """Export a checkpoint to FP32 and FP16 ONNX files and check both against PyTorch."""
    run_export(model, output, scale, arch, val_dir, upsampler_alpha, opset)


def run_export(
    model: Path,
    output: Path,
    scale: int | None,
    arch: str | None,
    val_dir: Path | None,
    upsampler_alpha: float | None,
    opset: int,
) -> None:
    """Export and print the result of the check; see :func:`export` for the arguments.

    Raises:
        ParagonError: a subclass that says what is wrong; files of an earlier export stay.
    """
    try:
        from paragonsr2.export.release import release_onnx
        from paragonsr2.weights.store import load_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting", "torch") from error

    checkpoint = load_checkpoint(model, arch=arch, scale=scale, upsampler_alpha=upsampler_alpha)
    released = release_onnx(checkpoint, output, val_dir=val_dir, opset=opset)
    for one in released:
        print(f"{one.precision}  {one.path}")
        for parity in one.parity:
            mark = "  worst" if parity is one.worst else ""
            print(f"  {parity.name:<28} {parity.max_error:9.2e}  {parity.psnr:7.2f} dB{mark}")
