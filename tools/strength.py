"""Measure the dial from a faithful model to another: ``results/perceptual/strength_x2.json``.

python tools/strength.py --model stream:perceptual
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from perceptual_evaluation import measures

from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, shrink
from paragonsr2.training.pictures import list_images
from paragonsr2.upscale.upscaler import Upscaler

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "perceptual" / "strength_x2.json"
STRENGTHS, SCALE = (0.0, 0.25, 0.5, 0.75, 1.0), 2


def main() -> None:
    """Measure each strength."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "val")
    options = parser.parse_args()
    dial = {s: Upscaler(f"{options.model}@{s:g}", SCALE, precision="fp32") for s in STRENGTHS}
    found: dict[float, list[list[float]]] = {s: [] for s in STRENGTHS}
    wanted = measures(SCALE)
    for path in list_images(options.data):
        hr = crop_to_multiple(read_picture(path).pixels, SCALE)
        lr = shrink(hr, SCALE)
        results = {s: upscaler(lr) for s, upscaler in dial.items()}
        for strength, sr in results.items():
            moved = np.abs(sr.astype(float) - results[0.0]).mean()
            found[strength].append([*(measure(sr, hr) for measure in wanted.values()), moved])
    keys = [*wanted, "mean_difference_from_strength_0"]
    rows = [
        {
            "strength": strength,
            **{
                key: round(float(value), 4)
                for key, value in zip(keys, np.mean(values, axis=0), strict=True)
            },
        }
        for strength, values in found.items()
    ]
    for row in rows:
        print(row)
    write_result(RESULT, {"model": options.model, "set": options.data.name, "rows": rows})


if __name__ == "__main__":
    main()
