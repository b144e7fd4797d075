"""``paragonsr2 models`` and ``paragonsr2 inspect``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paragonsr2.cli.options import JsonOption, TrustOption
from paragonsr2.cli.output import shown
from paragonsr2.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from paragonsr2.weights.catalogue import Entry


def models(
    as_json: JsonOption = False,
    long: Annotated[
        bool, typer.Option("--long", help="Also print size, cost, licence and file hashes.")
    ] = False,
) -> None:
    """List the bundled models and what each is for."""
    from paragonsr2.weights.catalogue import entries

    if as_json:
        rows = [{"name": entry.name, **dataclasses.asdict(entry)} for entry in entries()]
        print(json.dumps({"models": rows}, indent=1))
        return
    from paragonsr2.variants import VARIANTS
    from paragonsr2.weights.purposes import PURPOSES, available

    for variant, group in groupby(entries(), key=lambda entry: entry.variant):
        print(f"{variant}: {VARIANTS[variant].purpose}")
        for entry in group:
            print(f"  --model {entry.model} --scale {entry.scale}  {_quality(entry)}")
            if long:
                print("\n".join(f"    {line}" for line in _details(entry)))
    print("\nBy purpose:")
    for word, scales in available().items():
        scale = ", ".join(f"x{scale}" for scale in scales)
        print(f"  --for {word:<9} {PURPOSES[word].about} ({scale})")
    if not long:
        print("\nMore about each: paragonsr2 models --long")


def _quality(entry: Entry) -> str:
    from paragonsr2.measure.quality import decibel

    sets = (f"{name} {decibel(row['psnr_y'])}" for name, row in entry.quality.items())
    return f"PSNR-Y in dB: {', '.join(sets)}"


def _details(entry: Entry) -> Sequence[str]:
    hashes = (f"sha256 {about['sha256']}  {about['name']}" for about in entry.files.values())
    return (
        f"{entry.parameters:,} parameters, {entry.kmacs_per_pixel:.1f} K multiply-adds per "
        f"low-resolution pixel, {entry.licence}",
        *hashes,
    )


def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint, ONNX file or TensorRT engine.")],
    trust_model: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show variant, scale, parameters, cost and metadata of a model file."""
    from paragonsr2.weights.source import CHECKPOINT_SUFFIXES, MODEL_SUFFIXES

    suffix = file.suffix.lower()
    if suffix == ".onnx":
        about = _inspect_onnx(file, trusted=trust_model)
    elif suffix == ".engine":
        about = _inspect_engine(file)
    elif suffix in CHECKPOINT_SUFFIXES:
        about = _inspect_checkpoint(file, trusted=trust_model)
    else:
        known = ", ".join(MODEL_SUFFIXES)
        raise UsageError(
            _not_a_file(str(file)) or f"{file} is not a model file; give one that ends in {known}"
        )
    if as_json:
        print(json.dumps(about, indent=1))
    else:
        width = max(map(len, about))
        for key, value in about.items():
            text = json.dumps(value) if isinstance(value, dict) else str(value)
            print(shown(f"{key:<{width}}  {text}"))


def _not_a_file(name: str) -> str:
    """What to say about the name of a bundled or classical model; empty for other names."""
    from paragonsr2.errors import ParagonError
    from paragonsr2.weights.source import resolve

    if Path(name).suffix or Path(name).exists():
        return ""
    try:
        source = resolve(name)
    except ParagonError:
        return ""
    if source.graph is None:
        return f"'{name}' is computed without a model file, so there is nothing to inspect"
    return f"'{name}' is a bundled model, not a file; see it with: paragonsr2 models --long"


def _inspect_checkpoint(file: Path, *, trusted: bool) -> dict[str, object]:
    try:
        from paragonsr2.measure.cost import network_cost
        from paragonsr2.weights.store import load_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"inspecting {file.name}", "torch") from error
    checkpoint = load_checkpoint(file, trusted=trusted)
    cost = network_cost(checkpoint.network)
    return {
        **dataclasses.asdict(checkpoint.description),
        "parameters": cost.parameters,
        "kmacs_per_pixel": round(cost.kmacs_per_pixel, 2),
        "receptive_field": checkpoint.network.reach,
        "training": checkpoint.training,
    }


def _inspect_onnx(file: Path, *, trusted: bool) -> dict[str, object]:
    from paragonsr2.upscale.backends import OnnxBackend

    backend = OnnxBackend(file, device="cpu", trusted=trusted)
    about: dict[str, object] = dict(backend.session.get_modelmeta().custom_metadata_map)
    if "training" in about:
        about["training"] = backend.facts.training
    return {
        **about,
        "scale": backend.scale,
        "parameters": backend.facts.parameters,
        "kmacs_per_pixel": backend.facts.kmacs_per_pixel,
    }


def _inspect_engine(file: Path) -> dict[str, object]:
    from paragonsr2.tensorrt.engine_files import read_description

    return dataclasses.asdict(read_description(file))
