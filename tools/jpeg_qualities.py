"""Measure models on JPEGs of several qualities: ``results/quality/jpeg.json`` and ``jpeg_xN.json``.

    python tools/jpeg_qualities.py --data ../shared/data/val [--scale 4]

Each picture is shrunk, stored as JPEG and enlarged. The command's advice for JPEGs goes by it.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, score, shrink
from paragonsr2.training.pictures import list_images
from paragonsr2.upscale.upscaler import Upscaler

QUALITY = Path(__file__).resolve().parent.parent / "results" / "quality"
RESULTS = {2: QUALITY / "jpeg.json", 3: QUALITY / "jpeg_x3.json", 4: QUALITY / "jpeg_x4.json"}
QUALITIES = (20, 35, 50, 60, 70, 80, 90, 95, 98)
MODELS = {
    2: (
        "bicubic", "realtime", "realtime:compressed", "stream", "stream:compressed", "stream:real",
    ),
    3: ("bicubic", "realtime", "realtime:compressed", "stream"),
    4: (
        "bicubic", "realtime", "realtime:compressed", "stream", "stream:compressed", "stream:real",
    ),
}  # fmt: skip


def main() -> None:
    """Measure all models at all qualities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scale", type=int, choices=RESULTS, default=2)
    options = parser.parse_args()
    scale: int = options.scale
    models = {name: Upscaler(name, scale, precision="fp32") for name in MODELS[scale]}
    found: dict[tuple[int, str], list[float]] = {}
    for path in list_images(options.data):
        hr = crop_to_multiple(read_picture(path).pixels, scale)
        lr = Image.fromarray(shrink(hr, scale))
        for quality in QUALITIES:
            buffer = io.BytesIO()
            lr.save(buffer, "jpeg", quality=quality)
            with Image.open(buffer) as image:
                stored = np.asarray(image)
            for name, upscaler in models.items():
                value = score(upscaler(stored), hr, shave=scale).psnr_y
                found.setdefault((quality, name), []).append(value)
    rows = [
        {
            "quality": quality,
            "psnr_y": {name: round(float(np.mean(found[quality, name])), 3) for name in models},
        }
        for quality in QUALITIES
    ]
    for row in rows:
        print(row)
    write_result(RESULTS[scale], {"set": options.data.name, "scale": scale, "rows": rows})


if __name__ == "__main__":
    main()
