"""How much of the models' error lies at the border of a picture: ``results/quality/borders.json``.

    python tools/measure_borders.py --data ../shared/data/val

A picture is scored twice: without its outermost ``scale`` pixels, as the ruler does, and without
six times as many. Where the two differ much, the border decides the score.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, score, shrink
from paragonsr2.training.pictures import list_images
from paragonsr2.upscale.upscaler import Upscaler

RESULT = Path(__file__).resolve().parent.parent / "results" / "quality" / "borders.json"
SCALE = 2
#: What is left out of the second score: so many times the scale, in high-resolution pixels.
INSIDE = 6
MODELS = ("bicubic", "realtime", "stream", "photo")


def main() -> None:
    """Score all pictures with all models, with and without their borders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    models = {name: Upscaler(name, SCALE, precision="fp32") for name in MODELS}
    rows: dict[str, dict[str, dict[str, float]]] = {name: {} for name in models}
    for path in list_images(options.data):
        hr = crop_to_multiple(read_picture(path).pixels, SCALE)
        lr = shrink(hr, SCALE)
        for name, upscaler in models.items():
            sr = upscaler(lr)
            rows[name][path.stem] = {
                "psnr_y": round(score(sr, hr, SCALE).psnr_y, 3),
                "inside": round(score(sr, hr, INSIDE * SCALE).psnr_y, 3),
            }
            print(path.stem, name, rows[name][path.stem], flush=True)
    write_result(RESULT, {
        "set": options.data.name, "scale": SCALE,
        "left_out": [SCALE, INSIDE * SCALE], "models": rows,
    })  # fmt: skip


if __name__ == "__main__":
    main()
