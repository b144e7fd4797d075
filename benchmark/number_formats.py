"""What bfloat16 and INT8 on a CPU gain in time and cost in quality.

    PYTHONPATH=src python -m benchmark.number_formats --data ../shared/data

Each bundled model at x2 takes turns in ONNX Runtime and in OpenVINO, in float32, in bfloat16 and in
INT8, on the same noise input of 640x360; then the same backends enlarge Set14. OpenVINO computes
what does not round to 8 bits in bfloat16, or in float32, as on a processor without bfloat16. Needs
a processor with instructions for both. Writes ``results/speed/number_formats.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from paragonsr2.arrays.pixels import Pixels8, to_8_bits
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import evaluate_image, mean_score
from paragonsr2.measure.speed import time_side_by_side
from paragonsr2.upscale.backends import Backend, OnnxBackend
from paragonsr2.upscale.openvino_backend import OpenVinoBackend
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.catalogue import Entry, bundled_bytes, entries

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "speed" / "number_formats.json"
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
        backends = dict(_opened(entry, options.threads))
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


def _opened(entry: Entry, threads: int) -> Iterator[tuple[str, Backend]]:
    """Every engine and number format of a model, by name."""
    model = bundled_bytes(entry, "onnx")
    yield "onnxruntime fp32", OnnxBackend(model, device="cpu", threads=threads, trusted=True)
    in_openvino = partial(OpenVinoBackend, device="cpu", threads=threads, trusted=True)
    yield "openvino fp32", in_openvino(model, precision="fp32")
    yield "openvino bf16", in_openvino(model, precision="bf16")
    if "onnx_int8" in entry.files:
        model = bundled_bytes(entry, "onnx_int8")
        yield "onnxruntime int8", OnnxBackend(model, device="cpu", threads=threads, trusted=True)
        yield "openvino int8, fp32", in_openvino(model, precision="fp32")
        yield "openvino int8, bf16", in_openvino(model, precision="int8")


def _quality(up: Upscaler, originals: list[Pixels8]) -> float:
    return mean_score([evaluate_image(up, hr, SCALE) for hr in originals]).psnr_y


if __name__ == "__main__":
    main()
