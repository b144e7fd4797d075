"""Low resolution as real encoders leave it: short clips and stills.

A clip is made from one photograph: a window that moves by fractions of a pixel and zooms a little
is shrunk bicubically, encoded as video and decoded. One frame of the later half is kept, which
was predicted from others as most frames of a video are. Its window lies exactly on the pixel
grid, so that its high-resolution partner is the photograph itself, not resampled.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.clips.instructions import x264_instructions
from paragonsr2.clips.opening import opening_encoder
from paragonsr2.errors import MissingExtraError, TrainingError
from paragonsr2.training.data import Pair, Picture, generator
from paragonsr2.training.degradation_config import CodecConfig
from paragonsr2.training.pictures import SHRINK_REACH

#: Smallest side of a clip: encoders refuse smaller pictures, or treat them specially.
LEAST_SIDE = 64
#: Room for motion around a validation clip, in low-resolution pixels.
VALIDATION_EDGE = 8


@dataclass(frozen=True)
class VideoCodec:
    """How one video codec is used.

    Attributes:
        encoder: libav's name.
        decoder: libav's name.
        speed: name of the option that trades time for quality.
        speeds: its common values, without the slowest.
        options: other options. Encoders use one thread: clips are made in parallel, and the
            result does not depend on the number of cores.
        yuv444: whether the encoder supports full chroma.
    """

    encoder: str
    decoder: str
    speed: str
    speeds: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict[str, str])
    yuv444: bool = True


VIDEO = {
    "h264": VideoCodec(
        "libx264", "h264", "preset", ("ultrafast", "veryfast", "fast", "medium", "medium", "slow")
    ),
    "hevc": VideoCodec(
        "libx265",
        "hevc",
        "preset",
        ("ultrafast", "veryfast", "medium"),
        {"x265-params": "log-level=none:pools=none:frame-threads=1"},
    ),
    "vp9": VideoCodec(
        "libvpx-vp9", "vp9", "cpu-used", ("2", "4", "5"), {"b": "0", "deadline": "good"}
    ),
    "av1": VideoCodec(
        "libsvtav1",
        "libdav1d",
        "preset",
        ("6", "8", "10", "12"),
        {"svtav1-params": "lp=1"},
        yuv444=False,
    ),
}
#: Formats of Pillow, and whether it supports full chroma in them.
STILLS = {"jpeg": True, "webp": False, "avif": True}


@dataclass(frozen=True)
class Encoding:
    """Settings of one compression.

    Attributes:
        codec: key of :data:`VIDEO` or :data:`STILLS`.
        quality: constant rate factor of a video codec, quality of a still's.
        yuv444: full chroma instead of 4:2:0.
        speed: value of the video codec's speed option.
    """

    codec: str
    quality: int
    yuv444: bool = False
    speed: str = ""


@dataclass(frozen=True)
class ClipPlan:
    """What to cut and how to encode it, in low-resolution pixels.

    Attributes:
        picture: index of the picture.
        y, x, height, width: window of the kept frame.
        frames: number of frames; 1 for a still.
        kept: index of the kept frame.
        pan: motion of the window per frame, down and right.
        zoom: relative growth of the window per frame.
        encoding: of the clip.
        smaller: by what factor the clip was smaller once; 1 for never.
    """

    picture: int
    y: int
    x: int
    height: int
    width: int
    frames: int
    kept: int
    pan: tuple[float, float]
    zoom: float
    encoding: Encoding
    smaller: float = 1.0


def check_codecs(codecs: Sequence[str]) -> None:
    """Check that all codecs are available, before anything is encoded.

    Raises:
        MissingExtraError: PyAV is not installed.
        TrainingError: PyAV or Pillow was built without an encoder.
    """
    lacking = [
        f"{name} ({VIDEO[name].encoder})"
        for name in codecs
        if name in VIDEO and not _opens(VIDEO[name])
    ]
    lacking += [name for name in codecs if name in ("webp", "avif") and not features.check(name)]
    if lacking:
        raise TrainingError(
            f"the installed PyAV and Pillow cannot encode {', '.join(lacking)}; "
            "remove it from degradation.codec.mix"
        )


def _opens(codec: VideoCodec) -> bool:
    av = load_av()
    try:
        av.Codec(codec.encoder, "w")
        av.Codec(codec.decoder, "r")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def load_av() -> Any:
    """PyAV, which only this degradation needs.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtraError("compressed training data", "train") from error
    return av


def plan_clip(
    index: int,
    pictures: Sequence[Picture],
    chances: npt.NDArray[np.float64],
    settings: CodecConfig,
    seed: int,
) -> ClipPlan:
    """Plan clip ``index``; the same arguments give the same plan.

    Args:
        index: of the clip in its run.
        pictures: with sides of at least :data:`LEAST_SIDE`.
        chances: probability of each picture, ``(N,)`` of sum 1.
        settings: ranges to choose from.
        seed: of the run.
    """
    rng = generator(seed, 2, index, 0)
    which = int(rng.choice(len(pictures), p=chances))
    height, width = (
        min(int(rng.integers(*settings.side, endpoint=True)), side) // 2 * 2
        for side in pictures[which].size
    )
    y, x = (
        int(rng.integers(0, whole - part, endpoint=True))
        for whole, part in zip(pictures[which].size, (height, width), strict=True)
    )
    encoding = draw_encoding(settings, rng)
    frames = int(rng.integers(*settings.frames, endpoint=True))
    kept = int(rng.integers(frames // 2, frames))
    # Squared, because slow motion is more common than fast, and standstill is common.
    speed, angle = settings.pan * rng.random() ** 2, 2 * np.pi * rng.random()
    pan = (float(speed * np.sin(angle)), float(speed * np.cos(angle)))
    zoom = float(settings.zoom * rng.uniform(-1, 1) ** 3)
    if encoding.codec in STILLS:
        frames, kept = 1, 0
    smaller = _draw_smaller(settings, rng)
    return ClipPlan(which, y, x, height, width, frames, kept, pan, zoom, encoding, smaller)


def draw_encoding(settings: CodecConfig, rng: np.random.Generator) -> Encoding:
    """Choose a codec by its weight in ``settings.mix``, and a quality and speed for it."""
    names, weights = list(settings.mix), np.array(list(settings.mix.values()))
    codec = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    low, high = getattr(settings, f"{codec}_{'crf' if codec in VIDEO else 'quality'}")
    quality = int(rng.integers(low, high, endpoint=True))
    full_chroma = bool(rng.random() < settings.yuv444)
    if codec in STILLS:
        return Encoding(codec, quality, full_chroma and STILLS[codec])
    speeds = VIDEO[codec].speeds
    speed = speeds[int(rng.integers(len(speeds)))]
    return Encoding(codec, quality, full_chroma and VIDEO[codec].yuv444, speed)


def _draw_smaller(settings: CodecConfig, rng: np.random.Generator) -> float:
    if rng.random() >= settings.soft:
        return 1.0
    return float(rng.uniform(*settings.soft_by))


def make_clip(plan: ClipPlan, picture: Picture) -> Pixels8:
    """Cut, move, shrink, soften if planned, encode and decode.

    Returns:
        The kept frame, ``(plan.height, plan.width, 3)`` uint8.

    Raises:
        TrainingError: the codec failed.
    """
    still, _ = picture.crop(plan.y, plan.x, plan.height, plan.width)
    if plan.encoding.codec in STILLS:
        return compress_still(_softened(still, plan.smaller), plan.encoding)
    frames = [
        still if index == plan.kept else moved for index, moved in enumerate(_moving(plan, picture))
    ]
    softened = [_softened(frame, plan.smaller) for frame in frames]
    return compress_video(softened, plan.encoding)[plan.kept]


def _softened(pixels: Pixels8, smaller: float) -> Pixels8:
    """A picture that was ``smaller`` times smaller once, at the size it has now."""
    if smaller == 1:
        return pixels
    height, width = pixels.shape[:2]
    size = (round(width / smaller), round(height / smaller))
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def degrade_whole(pair: Pair, settings: CodecConfig) -> Pair:
    """A validation picture as one frame of a clip; the encoding follows from its content.

    Returns:
        The pair, without a border that the motion needs.

    Raises:
        TrainingError: the codec failed.
    """
    rng = generator(int(f"0{pair.digest[:12]}", 16), 3, 0, 0)
    edge = [min(VALIDATION_EDGE, (side - LEAST_SIDE) // 2) for side in pair.size]
    if min(edge) < 0:
        raise TrainingError(
            f"validation image {pair.name} is too small for a clip: its low resolution needs "
            f"{LEAST_SIDE} pixels on both sides"
        )
    height, width = (
        (side - 2 * spare) // 2 * 2 for side, spare in zip(pair.size, edge, strict=True)
    )
    y, x = edge
    plan = ClipPlan(
        0, y, x, height, width, frames=5, kept=3, pan=(0.7, 1.1), zoom=0.0,
        encoding=draw_encoding(settings, rng), smaller=_draw_smaller(settings, rng),
    )  # fmt: skip
    _, hr = pair.crop(y, x, height, width)
    return replace(pair, lr=make_clip(plan, pair), hr=np.ascontiguousarray(hr))


def _moving(plan: ClipPlan, picture: Picture) -> list[Pixels8]:
    """The frames of a clip, shrunk from windows at fractional positions."""
    (rows, columns), ahead = picture.size, max(plan.kept, plan.frames - 1 - plan.kept)
    spare = [
        int(ahead * (abs(speed) + abs(plan.zoom) * side)) + SHRINK_REACH
        for speed, side in zip(plan.pan, (plan.height, plan.width), strict=True)
    ]
    top, left = max(plan.y - spare[0], 0), max(plan.x - spare[1], 0)
    bottom = min(plan.y + plan.height + spare[0], rows)
    right = min(plan.x + plan.width + spare[1], columns)
    _, hr = picture.crop(top, left, bottom - top, right - left)
    scale, source = hr.shape[0] // (bottom - top), Image.fromarray(np.ascontiguousarray(hr))
    frames: list[Pixels8] = []
    for index in range(plan.frames):
        time = index - plan.kept
        box: list[tuple[float, float]] = []
        for start, side, speed, edge, length in (
            (plan.x, plan.width, plan.pan[1], left, right - left),
            (plan.y, plan.height, plan.pan[0], top, bottom - top),
        ):
            wide = min(side * (1 + plan.zoom * time), length)
            centre = start - edge + side / 2 + speed * time
            near = min(max(centre - wide / 2, 0), length - wide)
            box.append((near * scale, (near + wide) * scale))
        (x0, x1), (y0, y1) = box
        size = (plan.width, plan.height)
        small = source.resize(size, Image.Resampling.BICUBIC, box=(x0, y0, x1, y1))
        frames.append(np.asarray(small))
    return frames


def compress_still(pixels: Pixels8, encoding: Encoding) -> Pixels8:
    """Encode one picture with Pillow and decode it, ``(H, W, 3)`` uint8."""
    options: dict[str, Any] = {"quality": encoding.quality}
    if STILLS[encoding.codec]:
        options["subsampling"] = "4:4:4" if encoding.yuv444 else "4:2:0"
    if encoding.codec == "avif":
        options |= {"speed": 8, "max_threads": 1}
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, encoding.codec, **options)
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


def compress_video(frames: Sequence[Pixels8], encoding: Encoding) -> list[Pixels8]:
    """Encode a clip and decode it.

    Args:
        frames: ``(H, W, 3)`` uint8, sides even and at least :data:`LEAST_SIDE`.
        encoding: of a video codec.

    Returns:
        As many frames, in the same order.

    Raises:
        TrainingError: the codec failed, or lost a frame.
    """
    av = load_av()
    codec = VIDEO[encoding.codec]
    options = {"crf": str(encoding.quality), codec.speed: encoding.speed, **codec.options}
    if codec.encoder == "libx264" and x264_instructions():
        options["x264-params"] = ":".join(f"{k}={v}" for k, v in x264_instructions().items())
    try:
        packets = _encode(av, frames, codec.encoder, encoding.yuv444, options)
        decoder = av.CodecContext.create(codec.decoder, "r")
        decoder.thread_count = 1
        decoded = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    except av.FFmpegError as error:
        raise TrainingError(f"{codec.encoder} failed with {options}: {error}") from error
    decoded.sort(key=lambda frame: frame.pts)
    if [frame.pts for frame in decoded] != list(range(len(frames))):
        raise TrainingError(f"{codec.encoder} gave {len(decoded)} frames for {len(frames)}")
    how = _conversion(av)
    return [frame.reformat(format="rgb24", **how).to_ndarray() for frame in decoded]


def _encode(
    av: Any, frames: Sequence[Pixels8], name: str, yuv444: bool, options: dict[str, str]
) -> list[Any]:
    encoder = av.CodecContext.create(name, "w")
    encoder.height, encoder.width = frames[0].shape[:2]
    encoder.pix_fmt = "yuv444p" if yuv444 else "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(25), Fraction(1, 25)
    encoder.thread_count, encoder.options = 1, options
    with opening_encoder():
        encoder.open()
    packets: list[Any] = []
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format=encoder.pix_fmt, **_conversion(av))
        frame.pts, frame.time_base = index, encoder.time_base
        packets += encoder.encode(frame)
    return [*packets, *encoder.encode(None)]


def _conversion(av: Any) -> dict[str, Any]:
    """Options for converting colours in both directions, as the upscaler reads clips.

    Without full chroma and accurate rounding, libswscale darkens a picture by a whole level.
    """
    flags = av.video.reformatter.Interpolation
    exact = flags.BICUBIC | flags.ACCURATE_RND | flags.FULL_CHR_H_INT | flags.FULL_CHR_H_INP
    return {"interpolation": exact, "threads": 1}
