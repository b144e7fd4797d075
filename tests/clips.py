"""Small clips for tests, made with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from paragonsr2.clips.opening import opening_encoder

TICKS = Fraction(1, 12800)


def picture(index, width=64, height=36):
    """A smooth RGB frame (uint16) that moves with ``index``."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        0.5 + 0.35 * np.sin(x / 9 + index / 4 + c) * np.cos(y / 7 - index / 9 + c) for c in range(3)
    ]
    return (np.stack(planes, axis=-1) * 65535).astype(np.uint16)


def regular(frames, ticks=512):
    return [index * ticks for index in range(frames)]


def irregular(frames, seed=0):
    """Time stamps of a phone: around 25 frames a second, never the same distance twice."""
    steps = np.random.default_rng(seed).integers(200, 900, frames)
    return [int(value) for value in np.cumsum(steps) - steps[0]]


def make_clip(
    path: Path,
    pts,
    *,
    codec="libx264",
    pix_fmt="yuv420p",
    size=(64, 36),
    pictures=picture,
    options=None,
    sounds=0,
    subtitles=False,
    chapters=False,
    attachment=None,
    rotation=None,
    aspect=None,
    colour=None,
    metadata=None,
):
    """Write a clip; ``colour`` is (primaries, transfer, matrix, range) as FFmpeg numbers them."""
    width, height = size
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25, options={"preset": "ultrafast"} | (options or {}))
        context = video.codec_context
        context.width, context.height, context.pix_fmt = width, height, pix_fmt
        context.time_base = TICKS
        video.time_base = TICKS
        if aspect:
            context.sample_aspect_ratio = aspect
        if colour:
            context.color_primaries, context.color_trc, context.colorspace = colour[:3]
            context.color_range = colour[3]
        if rotation is not None:
            video.set_display_rotation(rotation)
        audio = [out.add_stream("aac", rate=16000) for _ in range(sounds)]
        for stream, language in zip(audio, ("eng", "deu"), strict=False):
            stream.metadata["language"] = language
        text = None
        if subtitles:
            text = out.add_mux_stream("subrip", time_base=Fraction(1, 1000))
            text.metadata["language"] = "fra"
        if attachment:
            out.add_attachment("font.ttf", "font/ttf", attachment)
        out.metadata.update(metadata or {})
        end = Fraction(pts[-1] + 512) * TICKS
        if chapters:
            half = int(end * 500)
            out.set_chapters(
                [
                    {"id": n, "start": start, "end": stop, "time_base": Fraction(1, 1000),
                     "metadata": {"title": title}}
                    for n, (start, stop, title) in enumerate(
                        [(0, half, "Öne"), (half, 2 * half, "Two")], 1)
                ]
            )  # fmt: skip
        with opening_encoder():
            out.start_encoding()
        matrix = {9: 9, 1: 1}.get(colour[2], 5) if colour else 5
        for index, stamp in enumerate(pts):
            rgb = av.VideoFrame.from_ndarray(pictures(index, width, height), format="rgb48le")
            coding = {"dst_colorspace": matrix, "dst_color_range": colour[3] if colour else 1}
            frame = rgb.reformat(format=pix_fmt, **({} if pix_fmt[0] in "gb" else coding))
            frame.pts, frame.time_base = stamp, TICKS
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for number, stream in enumerate(audio):
            _sing(out, stream, 220 * (number + 1), float(end))
        if text is not None:
            # Two at the same time, as karaoke has them.
            for number, start in enumerate((100, 100, 500)):
                line = av.Packet(f"line {number}".encode())
                line.stream, line.time_base = text, Fraction(1, 1000)
                line.pts = line.dts = start
                line.duration = 300
                out.mux(line)


def _sing(out, stream, pitch, seconds):
    time = np.arange(int(seconds * 16000)) / 16000
    wave = (np.sin(2 * np.pi * pitch * time) * 0.2).astype(np.float32)
    for start in range(0, len(wave), 1024):
        block = np.repeat(wave[None, start : start + 1024], 2, axis=0)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def look(path: Path):
    """What another reader finds in a file: a dictionary to compare."""
    with av.open(str(path)) as clip:
        packets = {}
        for packet in clip.demux():
            if packet.stream.type != "video" and (packet.size or packet.dts is not None):
                found = packets.setdefault(packet.stream.index, [])
                found.append((round(packet.pts * packet.time_base, 3), bytes(packet)))
        streams = [
            (stream.type, stream.metadata.get("language"), stream.disposition)
            for stream in clip.streams
        ]
        chapters = [
            (float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]), c["metadata"])
            for c in clip.chapters()
        ]
        files = [
            (stream.name, stream.data) for stream in clip.streams if stream.type == "attachment"
        ]
        metadata = {k: v for k, v in clip.metadata.items() if k.lower() in ("title", "comment")}
    with av.open(str(path)) as clip:
        stream = clip.streams.video[0]
        frames = list(clip.decode(video=0))
        context = stream.codec_context
        first = frames[0]
        return {
            "streams": streams,
            "chapters": chapters,
            "files": files,
            "metadata": metadata,
            "packets": packets,
            "times": [float(frame.pts * frame.time_base) for frame in frames],
            "size": (first.width, first.height),
            "format": first.format.name,
            "codec": context.name,
            "colour": (
                int(first.color_primaries), int(first.color_trc),
                int(first.colorspace), int(first.color_range),
            ),
            "aspect": stream.sample_aspect_ratio,
            "rotation": first.rotation,
            "side": {
                side.type.name: bytes(side)
                for side in first.side_data
                if side.type.name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
            },
            "frames": frames,
        }  # fmt: skip
