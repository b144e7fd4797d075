"""Describing a clip: size, rate, colour, HDR metadata, and what cannot be kept."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from paragonsr2.clips.container import decoded, main_stream, open_clip
from paragonsr2.errors import ImageError, ImageTooLargeError

#: Largest frame that is accepted, in pixels. A header of a few bytes can claim any size.
MAX_FRAME_PIXELS = 8192 * 8192

# Demuxers of broadcast formats, whose time stamps may start anywhere, often hours from zero.
_ANY_START = frozenset({"mpegts", "mpeg"})

# AVColorSpace tags: 2 is "unspecified", 0 is RGB. The others map to libswscale's matrices.
UNTAGGED, RGB = 2, 0

MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}


def guessed_matrix(width: int, height: int) -> int:
    """The matrix assumed for an untagged clip, as in players: BT.709 for HD, else BT.601."""
    return 1 if width >= 1280 or height > 576 else 6


@dataclass(frozen=True)
class Colour:
    """The colour tags of a stream, as code points of ITU-T H.273; 2 is unspecified.

    Attributes:
        primaries, transfer, matrix: code points.
        full_range: luma uses all codes (JPEG range) instead of 16..235; None if untagged.
    """

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    full_range: bool | None = None


@dataclass(frozen=True)
class Mastering:
    """Static HDR metadata (SMPTE ST 2086 and CTA-861.3).

    Attributes:
        primaries: x, y of red, green, blue and white; None if absent.
        luminance: minimum and maximum of the mastering display, cd/m²; None if absent.
        light: maximum content and frame-average light level, cd/m²; None if absent.
    """

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    light: tuple[int, int] | None = None


@dataclass(frozen=True)
class Clip:
    """A video file, described from its headers and its first frame.

    Attributes:
        path: the file.
        container: FFmpeg's name of the demuxer, such as ``mov,mp4,m4a,3gp,3g2,mj2``.
        stream: index of the video stream to enlarge.
        codec: codec of that stream.
        width, height: frame size in pixels, before rotation.
        pixel_format: FFmpeg's name; ``yuvj...`` is given as ``yuv...``.
        depth: bits per sample.
        alpha: frames have an alpha plane.
        rate: average frames per second; None if unknown.
        time_base: length of one tick of the time stamps in seconds.
        frames: number of frames, possibly an estimate; 0 if unknown.
        offset: ticks to subtract from every time stamp; 0 except in broadcast formats.
        sample_aspect_ratio: width of a pixel divided by its height; None if unspecified.
        colour: colour tags.
        mastering: static HDR metadata.
        display_matrix: nine numbers in FFmpeg's layout (rotation, mirroring); None if absent.
        notes: what cannot be kept, one sentence each.
    """

    path: Path
    container: str
    stream: int
    codec: str
    width: int
    height: int
    pixel_format: str
    depth: int
    alpha: bool
    rate: Fraction | None
    time_base: Fraction
    frames: int
    offset: int
    sample_aspect_ratio: Fraction | None
    colour: Colour
    mastering: Mastering
    display_matrix: tuple[int, ...] | None
    notes: tuple[str, ...] = ()

    @property
    def array_format(self) -> str:
        """FFmpeg's name of the RGB format of our arrays: 8 bits per sample if that suffices."""
        deep = self.depth > 8
        if self.alpha:
            return "rgba64le" if deep else "rgba"
        return "rgb48le" if deep else "rgb24"


def probe(path: Path, *, max_pixels: int = MAX_FRAME_PIXELS) -> Clip:
    """Open a video file and describe it; see :func:`describe`."""
    with open_clip(path) as container:
        return describe(container, path, max_pixels=max_pixels)


def describe(container: InputContainer, path: Path, *, max_pixels: int = MAX_FRAME_PIXELS) -> Clip:
    """Describe a clip from its headers and its first frame.

    Args:
        container: the open file; its reading position moves.
        path: of the file.
        max_pixels: largest frame that is accepted.

    Raises:
        ImageError: there is no video, no frame can be decoded, or the colour coding is not
            supported.
        ImageTooLargeError: a frame has more than ``max_pixels``.
    """
    stream = main_stream(container)
    _check_size(path, stream.width, stream.height, max_pixels)
    first = next(decoded(container, stream), None)
    if first is None:
        raise ImageError(f"{path} has no frame that can be decoded")
    _check_size(path, first.width, first.height, max_pixels)
    rate = stream.average_rate or stream.guessed_rate
    time_base = stream.time_base
    if time_base is None:
        raise ImageError(f"{path} has no time base")
    side_data = {side.type.name for side in first.side_data}  # pyright: ignore
    components = first.format.components
    return Clip(
        path=path,
        container=container.format.name,
        stream=stream.index,
        codec=stream.codec_context.codec.canonical_name,
        width=first.width,
        height=first.height,
        pixel_format=first.format.name.replace("yuvj", "yuv"),
        depth=max(component.bits for component in components),
        alpha=any(component.is_alpha for component in components),
        rate=rate if rate and 0 < rate <= 1000 else None,
        time_base=time_base,
        frames=stream.frames or _estimate_frames(container, rate),
        offset=_offset(container, time_base),
        sample_aspect_ratio=stream.sample_aspect_ratio or None,
        colour=_colour(first, path),
        mastering=_mastering(first),
        display_matrix=_display_matrix(first),
        notes=tuple(_notes(first, side_data)),
    )


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{path} has frames of {width * height / 1e6:.0f} megapixels; the limit is "
            f"{max_pixels / 1e6:.0f} (--max-megapixels)"
        )


def _offset(container: InputContainer, time_base: Fraction) -> int:
    if container.format.name not in _ANY_START or not container.start_time:
        return 0
    return round(Fraction(container.start_time, av.time_base) / time_base)


def _estimate_frames(container: InputContainer, rate: Fraction | None) -> int:
    if container.duration is None or not rate:
        return 0
    return max(0, round(Fraction(container.duration, av.time_base) * rate))


def _colour(frame: VideoFrame, path: Path) -> Colour:
    matrix = int(frame.colorspace)
    if matrix not in (*MATRICES, UNTAGGED, RGB):
        raise ImageError(f"{path} uses colour matrix {matrix}, which is not supported")
    tagged = {int(ColorRange.MPEG): False, int(ColorRange.JPEG): True}
    full = True if frame.format.name.startswith("yuvj") else tagged.get(int(frame.color_range))
    return Colour(int(frame.color_primaries), int(frame.color_trc), matrix, full)


def _side_data(frame: VideoFrame, kind: str) -> bytes | None:
    for side in frame.side_data:
        if side.type.name == kind:  # pyright: ignore
            return bytes(side)  # pyright: ignore
    return None


def _mastering(frame: VideoFrame) -> Mastering:
    display = _side_data(frame, "MASTERING_DISPLAY_METADATA")
    level = _side_data(frame, "CONTENT_LIGHT_LEVEL")
    primaries = luminance = light = None
    if display is not None and len(display) >= 88:
        # AVMasteringDisplayMetadata: ten rationals, then two flags.
        *numbers, has_primaries, has_luminance = struct.unpack("=22i", display[:88])
        values = [
            Fraction(top, bottom or 1)
            for top, bottom in zip(numbers[::2], numbers[1::2], strict=True)
        ]
        if has_primaries:
            primaries = tuple(zip(values[0:8:2], values[1:8:2], strict=True))
        if has_luminance:
            luminance = (values[8], values[9])
    if level is not None and len(level) >= 8:
        light = struct.unpack("=2I", level[:8])
    return Mastering(primaries, luminance, light)


def _display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    data = _side_data(frame, "DISPLAYMATRIX")
    return None if data is None or len(data) < 36 else struct.unpack("=9i", data[:36])


def _notes(frame: VideoFrame, side_data: set[str]) -> Iterator[str]:
    if frame.interlaced_frame:
        yield "the clip is interlaced but was treated as progressive; deinterlace it first"
    if side_data & {"DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID", "DOVI_METADATA", "DOVI_RPU_BUFFER"}:
        yield "dynamic HDR metadata is lost; static HDR metadata and colour tags are kept"
    if "A53_CC" in side_data:
        yield "closed captions embedded in the video stream are lost"
