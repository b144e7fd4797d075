"""Compare checkpoints of one network on each validation image and on noise.

    python tools/compare_stages.py --data ../shared/data best=a.safetensors last=b.safetensors

Writes ``results/decisions/stream_x2.json``: the PSNR-Y of every validation image, and the largest
output value for uniform noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from paragonsr2.arrays.convert import to_float, to_pixels
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, score, shrink
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.weights.store import load_checkpoint

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "decisions" / "stream_x2.json"


def psnr_of(network: ParagonSR2, path: Path, shave: int = 1) -> float:
    """PSNR-Y of one image in dB, without its outermost ``shave`` times ``scale`` pixels.

    The protocol's is without ``scale`` pixels.
    """
    hr = crop_to_multiple(read_picture(path).pixels, network.scale)
    with torch.no_grad():
        sr = network(torch.from_numpy(to_float(shrink(hr, network.scale)))).numpy()
    pixels = to_pixels(sr, hr).astype(np.uint8, copy=False)
    return round(score(pixels, hr, shave=shave * network.scale).psnr_y, 4)


def main() -> None:
    """Measure all checkpoints and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with val/")
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=FILE")
    options = parser.parse_args()
    noise = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    stages: dict[str, dict[str, object]] = {}
    for given in options.checkpoints:
        name, _, path = given.partition("=")
        network = load_checkpoint(Path(path)).network.eval()
        psnr = {one.stem: psnr_of(network, one) for one in sorted((options.data / "val").iterdir())}
        with torch.no_grad():
            largest = float(network(noise).abs().max())
        mean = round(float(np.mean(list(psnr.values()))), 4)
        stages[name] = {"psnr_y": psnr, "mean": mean, "largest_on_noise": round(largest, 3)}
        print(name, mean, largest)
    write_result(RESULT, {"set": "val", "scale": 2, "stages": stages})


if __name__ == "__main__":
    main()
