"""Measure models on H.264 clips by quantiser: ``results/quality/clips.json`` and ``clips_xN.json``.

    python tools/clip_qualities.py --data ../shared/data [--scale 4]

A real clip, and every validation picture as a clip over which the camera glides, are shrunk, stored
as H.264 (libx264, preset medium, 4:2:0), and enlarged: ten frames of the real one, one late frame
of the others. The choice of a model by the file goes by it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation
from compressed_evaluation import LEAST_AT_BEST, PRESET, even, fidelity, frames_of
from PIL import Image

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.clips.quantiser import quantiser
from paragonsr2.errors import ParagonError
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import score, shrink
from paragonsr2.training.pictures import list_images
from paragonsr2.upscale.upscaler import Upscaler

QUALITY = Path(__file__).resolve().parent.parent / "results" / "quality"
RESULTS = {2: QUALITY / "clips.json", 3: QUALITY / "clips_x3.json", 4: QUALITY / "clips_x4.json"}
CRFS = (14, 18, 20, 22, 24, 28, 34)
MODELS = {
    2: ("bicubic", "magic:1.0", "realtime", "realtime:compressed", "stream", "stream:compressed"),
    3: ("bicubic", "magic:1.0", "realtime", "realtime:compressed", "stream"),
    4: ("bicubic", "magic:1.0", "realtime", "realtime:compressed", "stream", "stream:compressed"),
}
#: Of a clip from a picture: its frames, which of them is compared, and the camera's motion per
#: frame, down and right, in low-resolution pixels.
FRAMES, KEPT, MOTION = 24, 18, (0.35, 0.55)
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def glide(hr: Pixels8, scale: int) -> tuple[list[Pixels8], Pixels8]:
    """Shrunk windows of a picture ``(H, W, 3)`` that move over it, and the original of one."""
    edge = [int(np.ceil(KEPT * speed)) for speed in MOTION]
    height, width = (
        (side // scale - 2 * spare) // 2 * 2 for side, spare in zip(hr.shape[:2], edge, strict=True)
    )
    picture, frames = Image.fromarray(hr), list[Pixels8]()
    for index in range(FRAMES):
        y, x = (
            scale * (spare + speed * (index - KEPT))
            for spare, speed in zip(edge, MOTION, strict=True)
        )
        box = (x, y, x + scale * width, y + scale * height)
        small = picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
        frames.append(np.asarray(small))
    top, left = (scale * spare for spare in edge)
    original = hr[top : top + scale * height, left : left + scale * width]
    return frames, np.ascontiguousarray(original)


def store(frames: Sequence[Pixels8], crf: int, path: Path) -> None:
    """Write frames ``(H, W, 3)`` as an H.264 clip."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, options={"crf": str(crf), "preset": PRESET})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU601, interpolation=_EXACT
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def stored(frames: Sequence[Pixels8], crf: int) -> tuple[list[Pixels8], float | None]:
    """The frames as H.264 leaves them, and the quantiser that their file tells."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        store(frames, crf, path)
        return frames_of(path), quantiser(path)


def rows(
    clips: Sequence[tuple[Sequence[Pixels8], dict[int, Pixels8]]], models: dict[str, Upscaler]
) -> list[dict[str, object]]:
    """For each quality the mean quantiser, and each model's PSNR-Y in dB.

    Args:
        clips: shrunk frames, and the originals of those that are compared by their index.
        models: by name.
    """
    for frames, _ in clips:
        if min(fidelity(stored(frames, 1)[0], frames)) < LEAST_AT_BEST:
            raise ParagonError("frames are out of order, or their colours changed, at CRF 1")
    found: list[dict[str, object]] = []
    for crf in CRFS:
        coarse: list[float] = []
        values: dict[str, list[float]] = {name: [] for name in models}
        for frames, kept in clips:
            decoded, qp = stored(frames, crf)
            assert qp is not None
            coarse.append(qp)
            for name, up in models.items():
                scores = [score(up(decoded[i]), hr, up.scale).psnr_y for i, hr in kept.items()]
                values[name].append(float(np.mean(scores)))
        found.append({
            "crf": crf,
            "quantiser": round(float(np.mean(coarse)), 1),
            "psnr_y": {name: round(float(np.mean(v)), 3) for name, v in values.items()},
        })  # fmt: skip
        print(found[-1], flush=True)
    return found


def main() -> None:
    """Measure all models at all qualities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scale", type=int, choices=RESULTS, default=2)
    options = parser.parse_args()
    scale: int = options.scale
    models = {name: Upscaler(name, scale, precision="fp32") for name in MODELS[scale]}
    film = [even(frame, scale) for frame in frames_of(options.data / "video" / "bikes.mp4")]
    real = ([shrink(frame, scale) for frame in film], dict(list(enumerate(film))[5::25]))
    pans = list[tuple[Sequence[Pixels8], dict[int, Pixels8]]]()
    for path in list_images(options.data / "val"):
        frames, original = glide(read_picture(path).pixels, scale)
        pans.append((frames, {KEPT: original}))
    write_result(
        RESULTS[scale],
        {
            "scale": scale,
            "encoder": f"libx264, preset {PRESET}, yuv420p",
            "protocol": f"PSNR on BT.601 luma, {scale} pixels shaved, mean over frames",
            "clip": rows([real], models),
            "pictures": rows(pans, models),
        },
    )


if __name__ == "__main__":
    main()
