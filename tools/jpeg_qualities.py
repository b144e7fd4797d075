"""Measure models on JPEGs of several qualities: ``results/quality/jpeg.json``.

    python tools/jpeg_qualities.py --data ../shared/data/val

Each picture is shrunk, stored as JPEG and enlarged. Below ``COARSE_BELOW`` of ``images/jpeg.py``
the command advises to take ``stream:compressed``.
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

RESULT = Path(__file__).resolve().parent.parent / "results" / "quality" / "jpeg.json"
QUALITIES = (20, 35, 50, 60, 70, 80, 90, 95)
MODELS = ("bicubic", "realtime", "stream", "stream:compressed", "stream:real")
SCALE = 2


def main() -> None:
    """Measure all models at all qualities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    models = {name: Upscaler(name, SCALE, device="cpu", precision="fp32") for name in MODELS}
    found: dict[tuple[int, str], list[float]] = {}
    for path in list_images(options.data):
        hr = crop_to_multiple(read_picture(path).pixels, SCALE)
        lr = Image.fromarray(shrink(hr, SCALE))
        for quality in QUALITIES:
            buffer = io.BytesIO()
            lr.save(buffer, "jpeg", quality=quality)
            with Image.open(buffer) as image:
                stored = np.asarray(image)
            for name, upscaler in models.items():
                value = score(upscaler(stored), hr, shave=SCALE).psnr_y
                found.setdefault((quality, name), []).append(value)
    rows = [
        {
            "quality": quality,
            "psnr_y": {name: round(float(np.mean(found[quality, name])), 3) for name in MODELS},
        }
        for quality in QUALITIES
    ]
    for row in rows:
        print(row)
    write_result(RESULT, {"set": options.data.name, "scale": SCALE, "rows": rows})


if __name__ == "__main__":
    main()
