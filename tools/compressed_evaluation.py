"""Measure models on held-out video that a real encoder has compressed.

    python tools/compressed_evaluation.py --model stream --model compressed=runs/x/best.safetensors

The frames of a clip are the originals. They are downscaled by bicubic, encoded as one H.264
stream at each quality (libx264, preset medium, 4:2:0), decoded and upscaled by each model; every
tenth frame is compared with its original by PSNR-Y. Bicubic, magic:1.0 and the input without
compression are always measured as well. Writes ``results/quality/compressed_x2.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.clips.clip import probe
from paragonsr2.clips.frames import read_frames
from paragonsr2.errors import ParagonError
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, luma, psnr, score, shrink
from paragonsr2.training.video_degradation import Encoding, compress_video
from paragonsr2.upscale.upscaler import Upscaler

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "quality" / "compressed_x2.json"
CLIP = ROOT.parent / "shared" / "data" / "video" / "bikes.mp4"
SCALE = 2
CODEC, PRESET = "h264", "medium"
CLASSICAL = ("bicubic", "magic:1.0")
#: CRF 1 loses only chroma resolution and rounding. A PSNR-Y below this, in dB, means that frames
#: are out of order, or that encoder and decoder use different colour matrices or ranges.
LEAST_AT_BEST = 45.0


def frames_of(clip: Path) -> list[Pixels8]:
    """All frames of ``clip``, ``(H, W, 3)`` uint8."""
    frames: list[Pixels8] = []
    for frame in read_frames(probe(clip)):
        pixels = frame.pixels
        frames.append(frames[-1] if pixels is None else pixels.astype(np.uint8, copy=False))
    return frames


def even(pixels: Pixels8, scale: int) -> Pixels8:
    """A frame cropped so that it can be shrunk by ``scale`` to sides that are even."""
    return np.ascontiguousarray(crop_to_multiple(pixels, 2 * scale))


def fidelity(decoded: Sequence[Pixels8], shrunk: Sequence[Pixels8]) -> list[float]:
    """PSNR-Y of each decoded frame against its source, in dB."""
    pairs = zip(decoded, shrunk, strict=True)
    return [psnr(luma(one), luma(other)) for one, other in pairs]


def measure(up: Upscaler, lr: Sequence[Pixels8], hr: Sequence[Pixels8]) -> float:
    """Mean PSNR-Y in dB, with ``SCALE`` pixels shaved at each border."""
    scores = [
        score(up(small).astype(np.uint8, copy=False), large, shave=SCALE).psnr_y
        for small, large in zip(lr, hr, strict=True)
    ]
    return round(float(np.mean(scores)), 4)


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        help="as for paragonsr2 upscale, or LABEL=MODEL; may be repeated",
    )
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--crf", type=int, nargs="+", default=[28, 34])
    parser.add_argument("--every", type=int, default=10, help="compare every Nth frame")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()

    models: dict[str, Upscaler] = {}
    for text in (*CLASSICAL, *options.model):
        label, _, model = text.rpartition("=")
        models[label or Path(model).name] = Upscaler(model, SCALE, precision="fp32")
    hr = [even(frame, SCALE) for frame in frames_of(options.clip)]
    shrunk = [shrink(frame, SCALE) for frame in hr]

    best = fidelity(compress_video(shrunk, Encoding(CODEC, 1, speed=PRESET)), shrunk)
    if min(best) < LEAST_AT_BEST:
        raise ParagonError(
            f"frame {int(np.argmin(best))} has only {min(best):.1f} dB after CRF 1; the "
            "frames are out of order, or the colours were converted differently"
        )
    inputs: dict[str, tuple[list[Pixels8], float | None]] = {"not encoded": (shrunk, None)}
    for crf in options.crf:
        decoded = compress_video(shrunk, Encoding(CODEC, crf, speed=PRESET))
        inputs[f"crf {crf}"] = (decoded, float(np.mean(fidelity(decoded, shrunk))))

    picked = slice(None, None, options.every)
    table: dict[str, dict[str, float]] = {}
    for name, (lr, _) in inputs.items():
        table[name] = {label: measure(up, lr[picked], hr[picked]) for label, up in models.items()}
        for label, value in table[name].items():
            print(f"{name:<12} {label:<40} {value:7.3f} dB", flush=True)
    write_result(
        options.result,
        {
            "clip": options.clip.name,
            "scale": SCALE,
            "frames": len(hr),
            "compared": len(hr[picked]),
            "every": options.every,
            "encoder": f"libx264, preset {PRESET}, yuv420p, one stream, 25 frames/s",
            "protocol": f"PSNR on BT.601 luma, {SCALE} pixels shaved, mean over frames",
            "least_psnr_y_of_input_at_crf_1": round(min(best), 2),
            "psnr_y_of_input": {k: round(v, 3) for k, (_, v) in inputs.items() if v is not None},
            "psnr_y": table,
            "models": {label: up.digest for label, up in models.items()},
        },
    )


if __name__ == "__main__":
    main()
