"""How much enlarged video flickers, and what blending over time would change.

Writes ``results/quality/flicker.json``. The clip is shrunk by the protocol; the small one is
enlarged as it is, and after H.264 at CRF 28. Two figures for each method, on luma in 8-bit
steps, beside the same figures of the true frames:

- *static*: mean absolute difference to the frame before, where the true frames do not change;
- *warped*: mean absolute difference to the frame before after it is moved along the motion of
  the true frames (OpenCV DIS), where that motion can be trusted.

Each method is also measured with a blend: every frame takes a share of the blended frame before,
moved along the motion of the *small* frames, as far as the small frames agree there. At a cut
nothing is taken over.
"""

from __future__ import annotations

import argparse
import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from paragonsr2 import Upscaler
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, luma, psnr, shrink

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "quality" / "flicker.json"
CLIP = ROOT.parent / "shared" / "data" / "video" / "bikes.mp4"

METHODS = ("bicubic", "magic:1.0", "realtime")
SCALE = 2
SHARES = (0.25, 0.5)

# In 8-bit steps: noise of the source that still counts as no change; error of motion that is
# still trusted; how fast the blend loses trust; mean change from which a frame begins a shot.
STILL, TRUSTED, AGREEING, CUT = 1.5, 4.0, 3.0, 25.0

Frame = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]
Flow = npt.NDArray[np.float32]


def read_clip(source: Path | io.BytesIO, limit: int | None = None) -> list[Frame]:
    """Frames as ``(H, W, 3)`` uint8."""
    with av.open(source if isinstance(source, io.BytesIO) else str(source)) as clip:
        frames: list[Frame] = []
        for frame in clip.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == limit:
                break
        return frames


def compressed(frames: list[Frame], crf: int) -> list[Frame]:
    """The frames as H.264 leaves them."""
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
    """Luma of a frame."""
    return luma(frame).astype(np.float32)


def motion(now: Plane, before: Plane) -> Flow:
    """Where each pixel of ``now`` was in ``before``: ``(H, W, 2)`` offsets x, y in pixels."""
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = finder.calc(*(np.rint(x).astype(np.uint8) for x in (now, before)), None)
    return np.asarray(flow, dtype=np.float32)


def moved(before: npt.NDArray[np.float32], flow: Flow) -> npt.NDArray[np.float32]:
    """``before`` as it would look now, had it only moved."""
    height, width = flow.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    warped = cv2.remap(
        before, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, dtype=np.float32)


class Ruler:
    """The masks and motions of the true frames, found once for all methods."""

    def __init__(self, truth: list[Frame]) -> None:
        self.truth = [plane(frame) for frame in truth]
        pairs = list(zip(self.truth, self.truth[1:], strict=False))
        self.cut = [bool(np.abs(now - before).mean() > CUT) for before, now in pairs]
        self.flow = [motion(now, before) for before, now in pairs]
        window = np.ones((5, 5), np.uint8)
        self.still = [cv2.dilate(np.abs(now - before), window) < STILL for before, now in pairs]
        self.trusted = [
            np.abs(now - moved(before, flow)) < TRUSTED
            for (before, now), flow in zip(pairs, self.flow, strict=True)
        ]

    def measure(self, planes: list[Plane]) -> dict[str, float]:
        """Flicker of enlarged frames, and their PSNR."""
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


@dataclass(frozen=True)
class Step:
    """From one small frame to the next, at the size of the large ones.

    Attributes:
        flow: motion in large pixels.
        trust: ``(H, W)`` 0..1, how far the small frames agree along it.
    """

    flow: Flow
    trust: Plane


def steps(small: list[Plane]) -> list[Step | None]:
    """What the small frames say about each frame but the first; None at a cut."""
    found: list[Step | None] = []
    for before, now in itertools.pairwise(small):
        if np.abs(now - before).mean() > CUT:
            found.append(None)
            continue
        flow = motion(now, before)
        disagreement = cv2.GaussianBlur(np.abs(now - moved(before, flow)), (5, 5), 0)
        trust = np.exp(-((disagreement / AGREEING) ** 2))
        size = (now.shape[1] * SCALE, now.shape[0] * SCALE)
        found.append(
            Step(
                np.asarray(cv2.resize(flow * SCALE, size), dtype=np.float32),
                np.asarray(cv2.resize(trust, size), dtype=np.float32),
            )
        )
    return found


def blended(planes: list[Plane], path: list[Step | None], share: float) -> list[Plane]:
    """Each frame with a share of the blended frame before, where the small frames agree."""
    out = planes[:1]
    for frame, step in zip(planes[1:], path, strict=True):
        if step is None:
            out.append(frame)
        else:
            carried = moved(out[-1], step.flow)
            out.append(frame + share * step.trust * (carried - frame))
    return out


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, help="only so many")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    truth = [crop_to_multiple(frame, SCALE) for frame in read_clip(CLIP, options.frames)]
    ruler = Ruler(truth)
    clean = [shrink(frame, SCALE) for frame in truth]
    inputs = {"as it is": clean, "H.264, CRF 28": compressed(clean, 28)}
    measured: dict[str, dict[str, dict[str, float]]] = {}
    for name, small in inputs.items():
        path = steps([plane(frame) for frame in small])
        rows: dict[str, dict[str, float]] = {}
        for method in METHODS:
            enlarge: Callable[[Frame], Frame] = Upscaler(method, SCALE)  # pyright: ignore
            planes = [plane(enlarge(frame)) for frame in small]
            rows[method] = ruler.measure(planes)
            for share in SHARES:
                rows[f"{method}, blend {share}"] = ruler.measure(blended(planes, path, share))
        measured[name] = rows
        for method, row in rows.items():
            print(f"{name:<14} {method:<24}", *(f"{k} {v:.3f}" for k, v in row.items()))
    true_flicker = ruler.measure(ruler.truth)
    result = {
        "clip": {"file": CLIP.name, "frames": len(truth), "cuts": sum(ruler.cut)},
        "scale": SCALE,
        "true_frames": {key: true_flicker[key] for key in ("static", "warped")},
        "inputs": measured,
        "opencv": cv2.__version__,
    }
    write_result(options.result, result)


if __name__ == "__main__":
    main()
