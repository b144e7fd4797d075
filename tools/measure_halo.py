"""Find the smallest halo of tiles for each bundled Photo: ``results/quality/tile_halo.json``.

    python tools/measure_halo.py --data ../shared/data/val

Photo's receptive field is larger than any useful halo, so its tiles differ from the whole picture.
This measures by how much, at tiles of 64x64, which have many borders, on a square from the middle
of each picture. The default halo is the smallest with a worst difference under half an 8-bit step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.training.pictures import list_images
from paragonsr2.upscale.backends import OnnxBackend
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.catalogue import entries

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "quality" / "tile_halo.json"
HALOS, TILE, SIDE = (16, 32, 48, 64), 64, 224
#: Half an 8-bit step.
LIMIT = 0.5 / 255


def main() -> None:
    """Measure each model at each halo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for entry in (entry for entry in entries() if entry.variant == "photo"):
        backend = OnnxBackend(entry.file("onnx").read(), device="cpu", trusted=True)
        default = backend.halo
        worst = dict.fromkeys(HALOS, 0.0)
        for path in list_images(options.data):
            pixels = read_picture(path).pixels.astype(np.float32) / 255
            y, x = ((side - SIDE) // 2 for side in pixels.shape[:2])
            lr = pixels[y : y + SIDE, x : x + SIDE]
            backend.halo = default
            whole = Upscaler.around(backend, tile="off")(lr)
            for halo in HALOS:
                backend.halo = halo
                tiled = Upscaler.around(backend, tile=TILE)(lr)
                worst[halo] = max(worst[halo], float(np.abs(tiled - whole).max()))
        enough = [halo for halo in HALOS if worst[halo] < LIMIT]
        rows.append(
            {
                "model": entry.name,
                "default_halo": default,
                "smallest_halo": min(enough) if enough else None,
                "worst_difference_in_levels": {
                    str(halo): round(value * 255, 3) for halo, value in worst.items()
                },
            }
        )
        print(rows[-1])
    write_result(RESULT, {"tile": TILE, "side": SIDE, "set": options.data.name, "models": rows})


if __name__ == "__main__":
    main()
