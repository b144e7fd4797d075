"""Time Realtime x2 beside a Compact-class network (64 channels, 16 convolutions) in one run.

Writes ``results/speed/realtime_x2_vs_compact.json``: both medians and their ratio, in ONNX
Runtime on the CPU, for a 1280x720 input.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.measure.machine import write_result
from paragonsr2.measure.speed import time_side_by_side
from paragonsr2.upscale.backends import OnnxBackend
from paragonsr2.weights.catalogue import bundled_bytes, find

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "speed" / "realtime_x2_vs_compact.json"


class CompactClass(nn.Module):
    """The architecture of realesr-animevideov3 at x2; random weights take the same time."""

    def __init__(self, channels: int = 64, convolutions: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.PReLU(channels)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, 12, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale ``(1, 3, H, W)`` by 2."""
        return F.pixel_shuffle(self.body(x), 2) + F.interpolate(x, scale_factor=2.0)


def to_onnx(network: nn.Module) -> bytes:
    """Export with dynamic height and width, like our models."""
    program = torch.onnx.export(
        network.eval(),
        (torch.rand(1, 3, 40, 56),),
        dynamic_shapes=({2: "height", 3: "width"},),
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise SystemExit("PyTorch returned no program")
    return program.model_proto.SerializeToString()


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, default=9)
    parser.add_argument("--model", type=Path, help="Realtime ONNX file; default: the bundled one")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()

    ours = options.model or bundled_bytes(find("realtime", 2), "onnx")
    torch.manual_seed(0)
    compact = to_onnx(CompactClass())
    candidates = {
        "realtime_x2": OnnxBackend(ours, device="cpu", threads=options.threads, trusted=True).run,
        "compact_class_x2": OnnxBackend(
            compact, device="cpu", threads=options.threads, trusted=True
        ).run,
    }
    timings = time_side_by_side(candidates, options.height, options.width, calls=options.calls)
    ratio = timings["compact_class_x2"].median / timings["realtime_x2"].median
    for name, timing in timings.items():
        print(f"{name:<18} median {timing.median * 1e3:8.1f} ms  p95 {timing.p95 * 1e3:8.1f} ms")
    print(f"realtime_x2 is {ratio:.2f} times faster")
    write_result(
        options.result,
        {
            "input": [options.height, options.width],
            "engine": "ONNX Runtime, CPU",
            "threads": options.threads,
            "seconds": {name: asdict(timing) for name, timing in timings.items()},
            "ratio": round(ratio, 3),
        },
    )


if __name__ == "__main__":
    main()
