"""Measure what lies between a faithful model and a crisp one, step by step.

    python tools/strength.py --model stream:perceptual
    python tools/strength.py --blend FAITHFUL.safetensors CRISP.safetensors --result RESULT.json

The first measures the dial that the command offers (``results/perceptual/strength_x2.json``), the
second two checkpoints, from whose blends one is to be chosen.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from blend import blend
from perceptual_evaluation import measures

from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, shrink
from paragonsr2.training.pictures import list_images
from paragonsr2.upscale.upscaler import Upscaler

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "perceptual" / "strength_x2.json"
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def measured(dial: dict[float, Upscaler], scale: int, data: Path) -> list[dict[str, Any]]:
    """A row for each position of the dial: means over the pictures of a folder."""
    found: dict[float, list[list[float]]] = {strength: [] for strength in dial}
    wanted = measures(scale)
    for path in list_images(data):
        hr = crop_to_multiple(read_picture(path).pixels, scale)
        lr = shrink(hr, scale)
        results = {strength: upscaler(lr) for strength, upscaler in dial.items()}
        for strength, sr in results.items():
            moved = np.abs(sr.astype(float) - results[min(dial)]).mean()
            found[strength].append([*(measure(sr, hr) for measure in wanted.values()), moved])
    keys = [*wanted, f"mean_difference_from_strength_{min(dial):g}"]
    return [
        {
            "strength": strength,
            **{
                key: round(float(value), 4)
                for key, value in zip(keys, np.mean(values, axis=0), strict=True)
            },
        }
        for strength, values in found.items()
    ]


def main() -> None:
    """Measure each strength."""
    parser = argparse.ArgumentParser(description=__doc__)
    ends = parser.add_mutually_exclusive_group(required=True)
    ends.add_argument("--model", help="bundled model with a dial")
    ends.add_argument("--blend", type=Path, nargs=2, metavar="CHECKPOINT")
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "val")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = {s: f"{options.model}@{s:g}" for s in options.strengths}
        if options.blend:
            names = {s: f"{folder}/{s:g}.safetensors" for s in options.strengths}
            for strength, name in names.items():
                blend(*options.blend, strength, Path(name))
        dial = {s: Upscaler(name, options.scale, precision="fp32") for s, name in names.items()}
        rows = measured(dial, options.scale, options.data)
    for row in rows:
        print(row)
    ends_named = options.model or [path.name for path in options.blend]
    write_result(options.result, {"model": ends_named, "set": options.data.name, "rows": rows})


if __name__ == "__main__":
    main()
