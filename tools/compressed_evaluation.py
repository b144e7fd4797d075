"""Measure models on held-out video as a real encoder leaves it.

    python tools/compressed_evaluation.py --model stream --model compressed=runs/x/best.safetensors

The frames of a clip are the originals. Their bicubic shrink is encoded as one H.264 stream at
each quality (libx264, preset medium, 4:2:0), decoded, and enlarged by each model; every tenth
frame is compared with its original by PSNR on luma. Bicubic and magic:1.0 are always measured,
and so is the shrink that was not encoded. Writes ``results/quality/compressed_x2.json``.
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
#: At CRF 1 nothing but 4:2:0 and rounding is lost. Less than this, in decibel of luma, means
#: that frames are in the wrong order, or that matrix or range differ on the way back.
LEAST_AT_BEST = 45.0


def originals(clip: Path) -> list[Pixels8]:
    """All frames of ``clip``, ``(H, W, 3)`` uint8, sides multiples of twice the scale."""
    frames: list[Pixels8] = []
    for frame in read_frames(probe(clip)):
        if frame.pixels is None:
            frames.append(frames[-1])
        else:
            even = crop_to_multiple(frame.pixels.astype(np.uint8, copy=False), 2 * SCALE)
            frames.append(np.ascontiguousarray(even))
    return frames


def fidelity(decoded: Sequence[Pixels8], shrunk: Sequence[Pixels8]) -> list[float]:
    """PSNR on luma of each decoded frame against the one that was encoded."""
    pairs = zip(decoded, shrunk, strict=True)
    return [psnr(luma(one), luma(other)) for one, other in pairs]


def measure(up: Upscaler, lr: Sequence[Pixels8], hr: Sequence[Pixels8]) -> float:
    """Mean PSNR on luma, ``SCALE`` pixels shaved, in decibel."""
    scores = [
        score(up(small).astype(np.uint8, copy=False), large, shave=SCALE).psnr_y
        for small, large in zip(lr, hr, strict=True)
    ]
    return round(float(np.mean(scores)), 4)


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", action="append", default=[], help="as of the command, or LABEL=MODEL"
    )
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--crf", type=int, nargs="+", default=[28, 34])
    parser.add_argument("--every", type=int, default=10, help="frames from one compared to next")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()

    models: dict[str, Upscaler] = {}
    for text in (*CLASSICAL, *options.model):
        label, _, model = text.rpartition("=")
        models[label or Path(model).name] = Upscaler(model, SCALE)
    hr = originals(options.clip)
    shrunk = [shrink(frame, SCALE) for frame in hr]

    best = fidelity(compress_video(shrunk, Encoding(CODEC, 1, speed=PRESET)), shrunk)
    if min(best) < LEAST_AT_BEST:
        raise ParagonError(
            f"at CRF 1 frame {int(np.argmin(best))} comes back at {min(best):.1f} dB only"
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
