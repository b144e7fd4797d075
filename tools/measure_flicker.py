"""Measure how much upscaled video flickers, with and without ``upscale --temporal``.

Writes ``results/quality/flicker.json``. The clip is downscaled by the protocol and upscaled twice:
as it is, and after H.264 at CRF 28. There are two figures for each method, on luma in 8-bit
steps, and the same figures for the original frames:

- *static*: mean absolute difference to the previous frame where the original does not change;
- *warped*: mean absolute difference to the previous frame after moving it along the motion of
  the original (OpenCV DIS), where that motion is reliable.

``--pictures`` writes crops of the places where steadying changed a frame most and where it did
most harm: original, upscaled, steadied, and the difference amplified four times.
"""

from __future__ import annotations

import argparse
import io
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from paragonsr2 import Upscaler
from paragonsr2.arrays.pixels import to_8_bits, to_16_bits
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, luma, psnr, shrink
from paragonsr2.upscale.temporal import SHARE, Steadier

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "quality" / "flicker.json"
CLIP = ROOT.parent / "shared" / "data" / "video" / "bikes.mp4"

METHODS = ("bicubic", "magic:1.0", "realtime")
SCALE = 2
SHARES = (SHARE, 0.5)

# In 8-bit steps: the largest difference that counts as no change, the largest error of motion
# that counts as reliable, and the mean difference from which a frame starts a new shot.
STILL, TRUSTED, CUT = 1.5, 4.0, 25.0

Frame = npt.NDArray[np.uint8]
Deep = npt.NDArray[np.uint16]
Plane = npt.NDArray[np.float32]
Flow = npt.NDArray[np.float32]


def read_clip(source: Path | io.BytesIO, limit: int | None = None) -> list[Frame]:
    """Decode the frames of a clip as ``(H, W, 3)`` uint8."""
    with av.open(source if isinstance(source, io.BytesIO) else str(source)) as clip:
        frames: list[Frame] = []
        for frame in clip.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == limit:
                break
        return frames


def compressed(frames: list[Frame], crf: int) -> list[Frame]:
    """The frames after encoding with H.264 and decoding."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))
    file.seek(0)
    return read_clip(file)


def plane(frame: Frame) -> Plane:
    """Luma of a frame, float32."""
    return luma(frame).astype(np.float32)


def motion(now: Plane, before: Plane) -> Flow:
    """Optical flow from ``now`` to ``before``: ``(H, W, 2)``, offsets x and y in pixels."""
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = finder.calc(*(np.rint(x).astype(np.uint8) for x in (now, before)), None)
    return np.asarray(flow, dtype=np.float32)


def moved(before: npt.NDArray[np.float32], flow: Flow) -> npt.NDArray[np.float32]:
    """Warp ``before`` along ``flow``."""
    height, width = flow.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    warped = cv2.remap(
        before, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, dtype=np.float32)


class Ruler:
    """Masks and motion of the original frames, computed once for all methods."""

    def __init__(self, truth: list[Frame]) -> None:
        self.truth = [plane(frame) for frame in truth]
        pairs = list(itertools.pairwise(self.truth))
        self.cut = [bool(np.abs(now - before).mean() > CUT) for before, now in pairs]
        self.flow = [motion(now, before) for before, now in pairs]
        window = np.ones((5, 5), np.uint8)
        self.still = [cv2.dilate(np.abs(now - before), window) < STILL for before, now in pairs]
        self.trusted = [
            np.abs(now - moved(before, flow)) < TRUSTED
            for (before, now), flow in zip(pairs, self.flow, strict=True)
        ]

    def measure(self, planes: list[Plane]) -> dict[str, float]:
        """Flicker and PSNR-Y of upscaled frames."""
        static: list[float] = []
        warped: list[float] = []
        for n, (before, now) in enumerate(itertools.pairwise(planes)):
            if self.cut[n]:
                continue
            if self.still[n].any():
                static.append(float(np.abs(now - before)[self.still[n]].mean()))
            error = np.abs(now - moved(before, self.flow[n]))
            warped.append(float(error[self.trusted[n]].mean()))
        quality = [
            psnr(a[2:-2, 2:-2].astype(np.float64), b[2:-2, 2:-2].astype(np.float64))
            for a, b in zip(planes, self.truth, strict=True)
        ]
        after_cut = [quality[n + 1] for n, cut in enumerate(self.cut) if cut]
        return {
            "static": round(float(np.mean(static)), 4),
            "warped": round(float(np.mean(warped)), 4),
            "psnr_y": round(float(np.mean([q for q in quality if np.isfinite(q)] or [0])), 4),
            "psnr_y_after_cuts": round(float(np.mean(after_cut or [0])), 4),
        }


def steadied(small: list[Frame], large: list[Deep], share: float) -> list[Frame]:
    """Blend each frame with ``share`` of the previous one, as ``--temporal`` does."""
    steadier = Steadier(SCALE, share)
    pairs = zip(itertools.pairwise(small), itertools.pairwise(large), strict=True)
    return [to_8_bits(large[0]), *(to_8_bits(steadier(*pair)) for pair in pairs)]


def change(before: list[Frame], after: list[Frame], cut: list[bool]) -> dict[str, float]:
    """Largest change by steadying in 8-bit steps: in all frames, and right after cuts."""
    steps = [int(cv2.absdiff(a, b).max()) for a, b in zip(before, after, strict=True)]
    return {
        "greatest_change": max(steps),
        "greatest_change_after_cuts": max((steps[n + 1] for n, is_cut in enumerate(cut) if is_cut)),
    }


def cost(small: list[Frame]) -> dict[str, float]:
    """Processor time in ms to upscale a frame from 1280x720 to 2560x1440; best of five."""
    frames = [cv2.resize(frame, (1280, 720), interpolation=cv2.INTER_CUBIC) for frame in small[:6]]
    upscaler, steadier = Upscaler("realtime", SCALE, precision="fp32"), Steadier(SCALE)
    spent: dict[str, list[float]] = {"plain": [], "deep": [], "steadying": []}
    large: list[Deep] = []

    def timed(name: str, work: Callable[[], Deep]) -> Deep:
        started = time.process_time()
        done = work()
        spent[name].append(1e3 * (time.process_time() - started))
        return done

    for n, frame in enumerate(frames):
        timed("plain", lambda frame=frame: upscaler(frame))
        large.append(timed("deep", lambda frame=frame: upscaler(to_16_bits(frame))))
        if n:
            pair = (frames[n - 1], frame), (large[n - 1], large[n])
            timed("steadying", lambda pair=pair: to_8_bits(steadier(*pair)))
    return {
        "enlarging": round(min(spent["plain"]), 1),
        "enlarging_to_16_bits": round(min(spent["deep"]), 1),
        "steadying": round(min(spent["steadying"]), 1),
    }


def show(
    folder: Path, name: str, truth: list[Frame], plain: list[Frame], steady: list[Frame]
) -> None:
    """Write crops of the places where steadying changed most and where it did most harm."""
    folder.mkdir(parents=True, exist_ok=True)
    for what in ("change", "harm"):
        found: list[tuple[float, int, int, int]] = []
        for n, (true, one, other) in enumerate(zip(truth, plain, steady, strict=True)):
            worse = np.abs(plane(other) - plane(true)) - np.abs(plane(one) - plane(true))
            score = np.abs(plane(other) - plane(one)) if what == "change" else worse
            score = cv2.blur(score, (5, 5))
            y, x = np.unravel_index(score.argmax(), score.shape)
            found.append((float(score.max()), n, int(y), int(x)))
        rows: list[npt.NDArray[np.uint8]] = []
        shown: list[int] = []
        for _, n, y, x in sorted(found, reverse=True):
            if len(rows) == 4 or any(abs(n - other) < 6 for other in shown):
                continue
            shown.append(n)
            height, width = truth[n].shape[:2]
            top, left = max(0, min(y - 48, height - 96)), max(0, min(x - 80, width - 160))
            signed = steady[n].astype(int) - plain[n]
            strong = np.clip(128 + 4 * signed, 0, 255).astype(np.uint8)
            crops = [
                image[top : top + 96, left : left + 160]
                for image in (truth[n], plain[n], steady[n], strong)
            ]
            rows.append(np.repeat(np.repeat(np.hstack(crops), 2, axis=0), 2, axis=1))
        cv2.imwrite(str(folder / f"{name}_{what}.png"), np.vstack(rows)[..., ::-1])


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, help="use only the first N frames")
    parser.add_argument("--pictures", type=Path, help="folder for crops to look at")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    truth = [crop_to_multiple(frame, SCALE) for frame in read_clip(CLIP, options.frames)]
    ruler = Ruler(truth)
    clean = [shrink(frame, SCALE) for frame in truth]
    inputs = {"as it is": clean, "H.264, CRF 28": compressed(clean, 28)}
    measured: dict[str, dict[str, dict[str, float]]] = {}
    for name, small in inputs.items():
        rows: dict[str, dict[str, float]] = {}
        for method in METHODS:
            upscaler = Upscaler(method, SCALE, precision="fp32")
            large: list[Deep] = [upscaler(to_16_bits(frame)) for frame in small]
            plain = [to_8_bits(frame) for frame in large]
            rows[method] = ruler.measure([plane(frame) for frame in plain])
            for share in SHARES:
                steady = steadied(small, large, share)
                rows[f"{method}, share {share}"] = {
                    **ruler.measure([plane(frame) for frame in steady]),
                    **change(plain, steady, ruler.cut),
                }
                if options.pictures and share == SHARE:
                    show(options.pictures, f"{name}_{method}", truth, plain, steady)
        measured[name] = rows
        for method, row in rows.items():
            print(f"{name:<14} {method:<24}", *(f"{k} {v:.3f}" for k, v in row.items()))
    true_flicker = ruler.measure(ruler.truth)
    result = {
        "clip": {"file": CLIP.name, "frames": len(truth), "cuts": sum(ruler.cut)},
        "scale": SCALE,
        "true_frames": {key: true_flicker[key] for key in ("static", "warped")},
        "inputs": measured,
        "processor_ms_1280x720_x2": cost(clean),
        "opencv": cv2.__version__,
    }
    write_result(options.result, result)


if __name__ == "__main__":
    main()
