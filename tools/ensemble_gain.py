"""Measure what ``--ensemble`` gains and costs: ``results/quality/ensemble.json``.

    python tools/ensemble_gain.py --data ../shared/data/benchmark

Each bundled fidelity model enlarges each picture plainly and with the mean of its eight mirror
images, one after the other; the cost is the ratio of both processor times.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, score, shrink
from paragonsr2.training.pictures import list_images
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.catalogue import entries

RESULT = Path(__file__).resolve().parent.parent / "results" / "quality" / "ensemble.json"
SETS = ("Set5", "Set14")
SCALES = (2, 4)


def main() -> None:
    """Measure each model on each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for entry in entries():
        if entry.kind != "fidelity" or entry.scale not in SCALES:
            continue
        ways = [
            Upscaler(entry.variant, entry.scale, device="cpu", precision="fp32", ensemble=whole)
            for whole in (False, True)
        ]
        seconds = np.zeros(2)
        gains: dict[str, float] = {}
        for name in SETS:
            found: list[list[float]] = []
            for path in list_images(options.data / name / "HR"):
                hr = crop_to_multiple(read_picture(path).pixels, entry.scale)
                lr = shrink(hr, entry.scale)
                scores = []
                for index, upscaler in enumerate(ways):
                    started = time.process_time()
                    sr = upscaler(lr)
                    seconds[index] += time.process_time() - started
                    scores.append(score(sr, hr, shave=entry.scale).psnr_y)
                found.append(scores)
            plain, whole = np.mean(found, axis=0)
            gains[name] = round(float(whole - plain), 4)
        rows.append(
            {
                "model": entry.name,
                "variant": entry.variant,
                "scale": entry.scale,
                "gain_db": gains,
                "times_the_cost": round(float(seconds[1] / seconds[0]), 2),
            }
        )
        print(rows[-1])
    write_result(RESULT, {"models": rows})


if __name__ == "__main__":
    main()
