"""``paragonsr2 models`` and ``paragonsr2 inspect``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from paragonsr2.cli.options import JsonOption
from paragonsr2.errors import MissingExtraError, WeightsError


def models(as_json: JsonOption = False) -> None:
    """List the bundled weights."""
    from paragonsr2.weights.catalogue import entries

    if as_json:
        rows = [{"name": entry.name, **dataclasses.asdict(entry)} for entry in entries()]
        print(json.dumps({"models": rows}, indent=1))
        return
    from paragonsr2.measure.quality import decibel

    for entry in entries():
        print(
            f"{entry.variant} x{entry.scale} {entry.kind}: {entry.parameters:,} parameters, "
            f"{entry.kmacs_per_pixel:.1f} K multiply-adds per pixel, {entry.licence}"
        )
        print(f"  sha256 {entry.files['onnx']['sha256']}")
        quality = (f"{name} {decibel(row['psnr_y'])} dB" for name, row in entry.quality.items())
        print(f"  {', '.join(quality)}")


def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint or an ONNX file.")],
    as_json: JsonOption = False,
) -> None:
    """Say what a checkpoint or ONNX file is: variant, scale, parameters, cost, metadata."""
    about = _inspect_onnx(file) if file.suffix == ".onnx" else _inspect_checkpoint(file)
    if as_json:
        print(json.dumps(about, indent=1))
    else:
        width = max(map(len, about))
        for key, value in about.items():
            print(f"{key:<{width}}  {json.dumps(value) if isinstance(value, dict) else value}")


def _inspect_checkpoint(file: Path) -> dict[str, object]:
    try:
        from paragonsr2.measure.cost import network_cost
        from paragonsr2.weights.store import load_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"inspecting {file.name}", "torch") from error
    checkpoint = load_checkpoint(file)
    cost = network_cost(checkpoint.network)
    return {
        **dataclasses.asdict(checkpoint.description),
        "parameters": cost.parameters,
        "kmacs_per_pixel": round(cost.kmacs_per_pixel, 2),
        "receptive_field": checkpoint.network.reach,
        "training": checkpoint.training,
    }


def _inspect_onnx(file: Path) -> dict[str, object]:
    from paragonsr2.upscale.backends import OnnxBackend

    backend = OnnxBackend(file, device="cpu")
    about: dict[str, object] = dict(backend.session.get_modelmeta().custom_metadata_map)
    if "training" in about:
        try:
            about["training"] = json.loads(str(about["training"]))
        except json.JSONDecodeError as error:
            raise WeightsError(f"{file.name}: its training digest is no JSON") from error
    about["scale"] = backend.scale
    for key, kind in (("parameters", int), ("kmacs_per_pixel", float)):
        about[key] = kind(str(about[key])) if key in about else None
    return about
