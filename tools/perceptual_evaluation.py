"""Measure models on damaged pictures with known originals, beside those that people use.

    python tools/perceptual_evaluation.py --model stream:real --model runs/x/best.safetensors
    python tools/perceptual_evaluation.py --model realtime:art --drawn 12 --result R --sheet S
    python tools/perceptual_evaluation.py --model stream:real --as-found FOLDER --result R --sheet S

Three inputs are made of each validation picture, or of pictures drawn by code: shrunk only,
shrunk and stored as JPEG of quality 20, and sent through the blind chain of the trainer with its
default ranges. Bicubic, the fidelity model of the same variant and Real-ESRGAN's ``animevideov3``
are always measured as well. Writes a result file and a sheet of crops, of the same place of the
pictures for all: where they differ most from bicubic on average. Of pictures as found there is no
original, so only NIQE and the blocks are measured.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
from features import ClassifierDistance, TextDetectorDistance
from labels import labelled
from ncnn_peers import NcnnPeer
from niqe import niqe
from PIL import Image

from paragonsr2.arrays.pixels import Pixels8, to_8_bits
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, score, shrink
from paragonsr2.training.data import Pair
from paragonsr2.training.degradation_config import BlindConfig
from paragonsr2.training.degradations import BlindDegradation
from paragonsr2.training.drawn import draw_picture
from paragonsr2.training.pictures import list_images
from paragonsr2.upscale.upscaler import Upscaler

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from benchmark.perceptual import (  # noqa: E402
    blockiness,
    gradient_distance,
    log_spectral_distance,
)

RESULT = ROOT / "results" / "perceptual" / "restoration_x2.json"
SHEET = ROOT / "docs" / "images" / "restoration.webp"
QUALITY, CROP = 20, 160
PEER = "realesr-animevideov3-x{}"
#: Of the drawn pictures; training draws others.
SEED = 20_000

Enlarge = Callable[[Pixels8], Pixels8]


def damaged(hr: Pixels8, digest: str, blind: BlindDegradation, scale: int) -> dict[str, Pixels8]:
    """The three inputs made of an original."""
    lr = shrink(hr, scale)
    buffer = io.BytesIO()
    Image.fromarray(lr).save(buffer, "jpeg", quality=QUALITY)
    with Image.open(buffer) as image:
        jpeg = np.asarray(image)
    through = blind.whole(Pair("", hr, lr, digest=digest)).lr
    return {"shrunk": lr, f"jpeg {QUALITY}": jpeg, "blind": through}


def measures(scale: int) -> dict[str, Callable[[Pixels8, Pixels8], float]]:
    """What is measured of a result and its original, by the key in the result file."""
    return {
        "psnr_y": lambda sr, hr: score(sr, hr, shave=scale).psnr_y,
        "log_spectral_distance_db": log_spectral_distance,
        "gradient_histogram_distance": gradient_distance,
        "efficientnet_lite0_distance": ClassifierDistance(),
        "text_detector_distance": TextDetectorDistance(),
        "niqe": lambda sr, _hr: niqe(sr),
        "blockiness": lambda sr, _hr: blockiness(sr, 8 * scale),
        "largest_shift_of_a_channel": lambda sr, hr: float(
            np.abs(sr.mean(axis=(0, 1)) - hr.mean(axis=(0, 1))).max()
        ),
    }


def main() -> None:
    """Measure all models on all inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "val")
    parser.add_argument("--drawn", type=int, default=0, help="pictures drawn by code, not --data")
    parser.add_argument("--as-found", type=Path, help="folder of pictures, enlarged as they are")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--sheet", type=Path, default=SHEET)
    options = parser.parse_args()
    scale = options.scale

    names = ["bicubic", *dict.fromkeys(_parent(name) for name in options.model), *options.model]
    models: dict[str, Enlarge] = {name: _enlarge(name, scale) for name in dict.fromkeys(names)}
    peer = PEER.format(scale)
    models[peer] = NcnnPeer(peer, scale)
    if options.as_found:
        write_as_found(list_images(options.as_found), models, options)
        return
    found = measures(scale)
    blind = BlindDegradation(BlindConfig.model_validate({}), scale)
    rows: dict[tuple[str, str], list[list[float]]] = {}
    pictures: list[dict[str, dict[str, Pixels8]]] = []
    if options.drawn:
        originals_of = [draw_picture(index, SEED) for index in range(options.drawn)]
    else:
        originals_of = [read_picture(path).pixels for path in list_images(options.data)]
    for index, original in enumerate(originals_of):
        hr = crop_to_multiple(original, scale)
        shown: dict[str, dict[str, Pixels8]] = {}
        for kind, lr in damaged(hr, f"{index:x}", blind, scale).items():
            results = {name: _timed(enlarge, lr) for name, enlarge in models.items()}
            for name, (sr, seconds) in results.items():
                values = [measure(sr, hr) for measure in found.values()]
                rows.setdefault((kind, name), []).append([*values, seconds / lr[..., 0].size * 1e6])
            shown[kind] = {name: sr for name, (sr, _) in results.items()} | {"original": hr}
        pictures.append(shown)
        originals = [measure(hr, hr) for measure in found.values()]
        rows.setdefault(("original", "original"), []).append([*originals, 0.0])
    keys = [*found, "seconds_per_megapixel"]
    table = [
        {
            "input": kind,
            "model": name,
            **{
                key: round(float(v), 5)
                for key, v in zip(keys, np.mean(values, axis=0), strict=True)
            },
        }
        for (kind, name), values in rows.items()
    ]
    for row in table:
        print(row)
    pictures_are = "drawn by code" if options.drawn else options.data.name
    about = {"images": len(originals_of), "set": pictures_are, "scale": scale}
    write_result(options.result, {**about, "rows": table})
    draw(pictures, options.sheet)


def write_as_found(paths: list[Path], models: dict[str, Enlarge], options: Namespace) -> None:
    """Enlarge pictures that have no originals; write the result file and the sheet."""
    scale: int = options.scale
    rows: list[dict[str, object]] = []
    crops: list[np.ndarray] = []
    for path in paths:
        lr = to_8_bits(read_picture(path).pixels)
        results = {name: _timed(enlarge, lr) for name, enlarge in models.items()}
        for name, (sr, seconds) in results.items():
            rows.append(
                {
                    "picture": path.name,
                    "model": name,
                    "niqe": round(niqe(sr), 3),
                    "blockiness": round(blockiness(sr, 8 * scale), 3),
                    "seconds_per_megapixel": round(seconds / lr[..., 0].size * 1e6, 3),
                }
            )
            print(rows[-1], flush=True)
        crops.append(_crops({name: sr for name, (sr, _) in results.items()}, path.stem))
    write_result(options.result, {"scale": scale, "rows": rows})
    Image.fromarray(np.vstack(crops)).save(options.sheet, quality=90)
    print(options.sheet)


def _parent(model: str) -> str:
    variant, colon, _ = model.partition(":")
    return variant if colon else "stream"


def _enlarge(model: str, scale: int) -> Enlarge:
    upscaler = Upscaler(model, scale, precision="fp32")
    return lambda pixels: upscaler(pixels).astype(np.uint8, copy=False)


def _timed(enlarge: Enlarge, lr: Pixels8) -> tuple[Pixels8, float]:
    started = time.process_time()
    sr = enlarge(lr)
    return sr, time.process_time() - started


def draw(pictures: list[dict[str, dict[str, Pixels8]]], path: Path) -> None:
    """Draw the blind and the JPEG input of the first three pictures, one row each."""
    kinds = ("blind", f"jpeg {QUALITY}")
    rows = [_crops(shown[kind], kind) for kind in kinds for shown in pictures[:3]]
    Image.fromarray(np.vstack(rows)).save(path, quality=90)
    print(path)


def _crops(images: dict[str, Pixels8], about: str) -> np.ndarray:
    """The place where the pictures differ most from bicubic on average, of each, side by side."""
    base = images["bicubic"].astype(float)
    spread = np.mean([np.abs(x - base).mean(axis=2) for x in images.values()], axis=0)
    tall, wide = (side // CROP for side in spread.shape)
    tiles = spread[: tall * CROP, : wide * CROP].reshape(tall, CROP, wide, CROP)
    top, left = np.unravel_index(int(tiles.mean(axis=(1, 3)).argmax()), (tall, wide))
    area = tuple(slice(int(at) * CROP, int(at + 1) * CROP) for at in (top, left))
    return np.hstack(
        [
            labelled(f"{name}, {about}" if name == "bicubic" else name, pixels[area])
            for name, pixels in images.items()
        ]
    )


if __name__ == "__main__":
    main()
