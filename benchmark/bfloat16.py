"""What bfloat16 on a CPU gains in time and costs in quality: ``results/speed/bfloat16.json``.

    PYTHONPATH=src python -m benchmark.bfloat16 --data ../shared/data

Each bundled model at x2 takes turns in ONNX Runtime and in OpenVINO, in float32 and in bfloat16, on
the same noise input of 640x360; then the same backends enlarge Set14. Needs a processor with
instructions for bfloat16.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from paragonsr2.arrays.pixels import Pixels8, to_8_bits
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import evaluate_image, mean_score
from paragonsr2.measure.speed import time_side_by_side
from paragonsr2.upscale.backends import OnnxBackend
from paragonsr2.upscale.openvino_backend import OpenVinoBackend
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.catalogue import bundled_bytes, entries

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "speed" / "bfloat16.json"
HEIGHT, WIDTH, SCALE = 360, 640, 2
#: Timed calls by variant: slow networks need fewer, because each call averages over more work.
CALLS = {"realtime": 15, "stream": 9, "photo": 3}


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    originals = [
        to_8_bits(read_picture(path).pixels)
        for path in sorted((options.data / "benchmark" / "Set14" / "HR").iterdir())
    ]
    rows: list[dict[str, object]] = []
    for entry in entries():
        if entry.scale != SCALE:
            continue
        model, threads = bundled_bytes(entry, "onnx"), options.threads
        backends = {
            "onnxruntime fp32": OnnxBackend(model, device="cpu", threads=threads, trusted=True),
            "openvino fp32": OpenVinoBackend(
                model, device="cpu", precision="fp32", threads=threads, trusted=True
            ),
            "openvino bf16": OpenVinoBackend(
                model, device="cpu", precision="bf16", threads=threads, trusted=True
            ),
        }
        timings = time_side_by_side(
            {name: backend.run for name, backend in backends.items()},
            HEIGHT,
            WIDTH,
            calls=CALLS[entry.variant],
        )
        scores = {name: _quality(Upscaler.around(b), originals) for name, b in backends.items()}
        row: dict[str, object] = {
            "model": entry.model,
            "milliseconds": {name: round(t.median * 1e3, 1) for name, t in timings.items()},
            "set14_psnr_y": {name: round(value, 4) for name, value in scores.items()},
        }
        rows.append(row)
        print(row)
    about = {"input": [WIDTH, HEIGHT], "scale": SCALE, "threads": options.threads}
    write_result(RESULT, {**about, "rows": rows})


def _quality(up: Upscaler, originals: list[Pixels8]) -> float:
    return mean_score([evaluate_image(up, hr, SCALE) for hr in originals]).psnr_y


if __name__ == "__main__":
    main()
