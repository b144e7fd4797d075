"""``paragonsr2 export``: checked, dynamic ONNX files, and the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from paragonsr2.cli.options import ScaleOption, TrustOption
from paragonsr2.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from paragonsr2.export.other_tools import Format


def export(
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A .safetensors or .pth checkpoint, or a bundled model."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the files and the report.")
    ],
    scale: ScaleOption = None,
    file_format: Annotated[
        Literal["onnx", "ncnn", "glsl", "wgsl", "triton"],
        typer.Option(
            "--format",
            help="glsl: a shader for mpv; wgsl: WebGPU kernels; triton: a model repository.",
        ),
    ] = "onnx",
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
    trust_model: TrustOption = False,
) -> None:
    """Export a model for other programs.

    ONNX comes as FP32 and FP16 files, and both are checked against PyTorch.
    """
    if file_format != "onnx":
        if (arch, val_dir, upsampler_alpha, opset) != (None, None, None, 18):
            raise OptionError("--arch, --val-dir, --upsampler-alpha and --opset are for ONNX only")
        _export_other(model, output, scale, file_format, trusted=trust_model)
        return
    run_export(model, output, scale, arch, val_dir, upsampler_alpha, opset, trusted=trust_model)


def _export_other(
    model: str, output: Path, scale: int | None, kind: Format, *, trusted: bool
) -> None:
    try:
        from paragonsr2.export.other_tools import export_format
        from paragonsr2.weights.source import resolve
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting", "torch") from error

    for path in export_format(resolve(model, scale, trusted=trusted), kind, output):
        print(path)


def run_export(
    model: str | Path,
    output: Path,
    scale: int | None,
    arch: str | None,
    val_dir: Path | None,
    upsampler_alpha: float | None,
    opset: int,
    *,
    trusted: bool = False,
) -> None:
    """Export and print the result of the check; see :func:`export` for the arguments.

    Raises:
        ParagonError: a subclass that says what is wrong; files of an earlier export stay.
    """
    try:
        from paragonsr2.export.release import release_onnx
        from paragonsr2.weights.source import resolve
        from paragonsr2.weights.store import load_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting", "torch") from error

    file = resolve(model, scale).checkpoint
    if file is None:
        raise OptionError(f"{model} is not a checkpoint; give a .safetensors or .pth file")
    checkpoint = load_checkpoint(
        file.path, arch=arch, scale=scale, upsampler_alpha=upsampler_alpha, trusted=trusted
    )
    released = release_onnx(checkpoint, output, val_dir=val_dir, opset=opset)
    for one in released:
        print(f"{one.precision}  {one.path}")
        for parity in one.parity:
            mark = "  worst" if parity is one.worst else ""
            print(f"  {parity.name:<28} {parity.max_error:9.2e}  {parity.psnr:7.2f} dB{mark}")
