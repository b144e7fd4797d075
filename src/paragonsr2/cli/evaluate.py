"""``paragonsr2 evaluate``: PSNR-Y and SSIM-Y by the standard protocol."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from paragonsr2.cli.options import (
    BackendOption,
    DeviceOption,
    EnsembleOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    ScaleOption,
    TrustOption,
)
from paragonsr2.cli.output import shown
from paragonsr2.errors import ImageError, UsageError

if TYPE_CHECKING:
    from paragonsr2.measure.quality import Score
    from paragonsr2.upscale.upscaler import Upscaler


def evaluate(
    folders: Annotated[list[Path], typer.Argument(help="Folders of high-resolution images.")],
    model: ModelOption = "realtime",
    scale: ScaleOption = None,
    kind: Annotated[str, typer.Option(help="How the input is shrunk: bicubic.")] = "bicubic",
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    ensemble: EnsembleOption = False,
    trust_model: TrustOption = False,
    result: Annotated[
        Path | None,
        typer.Option(help="Also write the scores and a description of the machine here."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model: shrink the images of each folder, enlarge them, and compare luma."""
    from paragonsr2.measure.machine import write_result
    from paragonsr2.measure.quality import mean_score
    from paragonsr2.upscale.upscaler import Upscaler
    from paragonsr2.weights.source import is_bundled

    if kind != "bicubic":
        raise UsageError(f"there is no --kind {kind}; use bicubic")
    if (backend, precision) == ("auto", "auto") and is_bundled(model):
        # A score is that of the weights, on every machine.
        precision = "fp32"
    up = Upscaler(
        model,
        scale,
        backend=backend,
        device=device,
        precision=precision,
        ensemble=ensemble,
        trust_model=trust_model,
        # A broken model has a score, too.
        check_results=False,
    )
    sets: dict[str, dict[str, float | int]] = {}
    images: dict[str, dict[str, dict[str, float]]] = {}
    for folder in folders:
        scores = _evaluate_folder(up, folder)
        mean = mean_score(list(scores.values()))
        name = _set_name(folder)
        if name in sets:
            raise UsageError(f"two folders are both called {name}; evaluate them one at a time")
        sets[name] = {**_rounded(mean), "images": len(scores)}
        images[name] = {file: _rounded(score) for file, score in scores.items()}
    whole: dict[str, Any] = {"model": model, "scale": up.scale, "sets": sets}
    if ensemble:
        whole["ensemble"] = True
    if result is not None:
        write_result(
            result, {**whole, "kind": kind, "backend": up.backend.name, "per_image": images}
        )
    if as_json:
        print(json.dumps(whole))
        return
    for name, row in sets.items():
        print(
            f"{name:<16} {row['psnr_y']:7.3f} dB  SSIM {row['ssim_y']:.4f}  {row['images']} images"
        )


def _rounded(score: Score) -> dict[str, float]:
    return {"psnr_y": round(score.psnr_y, 4), "ssim_y": round(score.ssim_y, 5)}


def _set_name(folder: Path) -> str:
    """``Set5`` for both ``Set5`` and ``Set5/HR``."""
    folder = folder.resolve()
    return folder.parent.name if folder.name.upper() == "HR" else folder.name


def _evaluate_folder(up: Upscaler, folder: Path) -> dict[str, Score]:
    import numpy as np

    from paragonsr2.images.formats import READABLE
    from paragonsr2.images.reading import read_picture
    from paragonsr2.measure.quality import evaluate_image

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in READABLE)
    if not files:
        raise ImageError(f"there are no images in {folder}; give another folder")
    scores: dict[str, Score] = {}
    for file in files:
        pixels = read_picture(file).pixels
        if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):
            raise ImageError(f"{file} is not 8-bit grey or RGB; convert it for evaluation")
        rgb = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
        scores[file.name] = evaluate_image(cast(Any, up), cast(Any, rgb), up.scale)
        if sys.stderr.isatty():
            print(f"{shown(file.name)}: {scores[file.name].psnr_y:.2f} dB", file=sys.stderr)
    return scores
