"""Time Photo x2 as it is exported beside Photo with a convolution per half, and SPAN-S, in one run.

    python -m benchmark.joined_halves --peers ../shared/peers/peers.json

Writes ``results/speed/joined_halves.json``. What the join does is told in
``paragonsr2.network.blocks.join_narrow_halves``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

from benchmark.peers import build_peer, read_peers, to_onnx
from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.export.graph_writing import build_onnx
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.speed import time_side_by_side
from paragonsr2.upscale.backends import OnnxBackend
from paragonsr2.upscale.openvino_backend import OpenVinoBackend
from paragonsr2.weights.catalogue import bundled_path, find
from paragonsr2.weights.store import load_checkpoint

RESULT = Path(__file__).parent.parent / "results" / "speed" / "joined_halves.json"
PEER = "SPAN-S"


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, required=True, help="table of other networks")
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, default=9)
    options = parser.parse_args()
    height, width, threads = options.height, options.width, options.threads

    photo = load_checkpoint(bundled_path(find("photo", 2), "safetensors")).network
    joined = build_onnx(photo, "photo")
    with patch("paragonsr2.network.blocks.NARROW", 0):
        apart = build_onnx(photo, "photo")
    peer = next(row for row in read_peers(options.peers) if row.name == PEER)

    def in_onnx(content: bytes) -> Callable[[FloatNCHW], object]:
        return OnnxBackend(content, device="cpu", threads=threads, trusted=True).run

    def in_openvino(content: bytes) -> Callable[[FloatNCHW], object]:
        return OpenVinoBackend(
            content, device="cpu", precision="fp32", threads=threads, trusted=True
        ).run

    candidates = {
        PEER: in_onnx(to_onnx(build_peer(peer), height, width)),
        "photo": in_onnx(joined),
        "photo, halves apart": in_onnx(apart),
        "photo, OpenVINO": in_openvino(joined),
        "photo, halves apart, OpenVINO": in_openvino(apart),
    }
    timings = time_side_by_side(candidates, height, width, calls=options.calls, warmup=2)
    result = {
        "input": [height, width],
        "threads": threads,
        "seconds": {name: asdict(timing) for name, timing in timings.items()},
    }
    write_result(RESULT, result)
    for name, timing in timings.items():
        print(f"{name:<30} {timing.median * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
