"""Video files through PyAV: what a clip is, its frames as RGB arrays, and arrays back as frames."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from paragonsr2.errors import EnvironmentProblem, ImageError, ImageTooLargeError
from paragonsr2.pixels.arrays import Pixels

try:
    import av
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.stream import Disposition
    from av.video.frame import VideoFrame
    from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
    from av.video.stream import VideoStream
except ImportError as error:
    raise EnvironmentProblem(f"PyAV does not load ({error}); reinstall: pip install av") from error

#: File suffixes that are taken for video.
VIDEO_SUFFIXES = frozenset(
    {
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
        ".flv", ".wmv", ".asf", ".ogv", ".3gp", ".nut", ".mxf", ".dv", ".ivf", ".y4m",
    }
)  # fmt: skip

#: Pixels of one frame above which a clip is refused: a few bytes can claim more.
MAX_FRAME_PIXELS = 8192 * 8192

# A playlist or a "concat" script is a text file that makes the demuxer open other files.
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,nut,mxf,dv,ivf,yuv4mpegpipe",
}
# Their clocks start anywhere, often at hours.
_ANY_START = frozenset({"mpegts", "mpeg"})

# libswscale's defaults are fast; these are the ones that come back to where they started.
_EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

# AVColorSpace tags to what libswscale converts by; 2 is "unspecified", 0 is RGB.
UNTAGGED, RGB = 2, 0
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}


def guessed_matrix(width: int, height: int) -> int:
    """The matrix that an untagged clip is taken for, as players do: BT.709 for HD, else BT.601."""
    return 1 if width >= 1280 or height > 576 else 6


@dataclass(frozen=True)
class Colour:
    """The colour tags of a stream, as the numbers of ITU-T H.273; 2 is unspecified.

    Attributes:
        primaries, transfer, matrix: code points.
        full_range: luma uses all codes (JPEG range) instead of 16..235; None if unspecified.
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
        luminance: least and greatest of the mastering display, cd/m²; None if absent.
        light: greatest content and frame-average light level, cd/m²; None if absent.
    """

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    light: tuple[int, int] | None = None


@dataclass(frozen=True)
class Clip:
    """What a video file holds, from its headers and its first frame.

    Attributes:
        path: the file.
        container: demuxer, such as ``mov,mp4,m4a,3gp,3g2,mj2``.
        stream: index of the stream that is enlarged.
        codec: its codec.
        width, height: of a frame, in pixels, before rotation.
        pixel_format: FFmpeg's name, without the deprecated full-range ones.
        depth: bits of a sample.
        alpha: frames have an alpha plane.
        rate: average frames per second; None if unknown.
        time_base: seconds of one tick of the time stamps.
        frames: how many, as far as known; 0 if not.
        offset: ticks taken off every time stamp; not 0 only where clocks start anywhere.
        sample_aspect_ratio: width by height of a pixel; None if unspecified.
        colour: tags.
        mastering: static HDR metadata.
        display_matrix: nine numbers in FFmpeg's layout (rotation, mirroring); None without.
        notes: what of the clip cannot be kept, in words.
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
        """The RGB format in which pixels leave and come back: 8 bit where that is enough."""
        deep = self.depth > 8
        if self.alpha:
            return "rgba64le" if deep else "rgba"
        return "rgb48le" if deep else "rgb24"


@dataclass(frozen=True)
class TimedPixels:
    """One frame.

    Attributes:
        index: its place in the clip, from 0.
        pts: presentation time in ticks of the clip's time base; rises strictly.
        duration: in ticks; 0 if unknown.
        pixels: ``(H, W, 3 or 4)`` uint8 or uint16, full range RGB in the clip's own primaries
            and transfer; None where they equal those of the frame before.
    """

    index: int
    pts: int
    duration: int
    pixels: Pixels | None


def is_video(path: Path) -> bool:
    """Whether a file is video, by its suffix, or by its first bytes where that says nothing."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return True
    if suffix:
        return False
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    stills = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
    return (
        (head[4:8] == b"ftyp" and head[8:12] not in stills)
        or head[:4] == b"\x1aE\xdf\xa3"
        or (head[:4] == b"RIFF" and head[8:11] == b"AVI")
    )


@contextmanager
def open_clip(path: Path) -> Generator[InputContainer]:
    """Open a video file for reading; it can reach no other file and no network.

    Raises:
        ImageError: no video, or damaged beyond reading.
    """
    try:
        with av.open(
            str(path),
            mode="r",
            container_options=_OPEN_OPTIONS,
            # Tags in an unknown encoding come through as the bytes they are.
            metadata_errors="surrogateescape",
        ) as container:
            yield container
    except (FFmpegError, OSError) as error:
        raise ImageError(f"{path} is no readable video, or damaged: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What FFmpeg says is wrong, in one short line without the file's name."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:160]


def main_stream(container: InputContainer) -> VideoStream:
    """The stream to enlarge: the first that is no cover picture.

    Raises:
        ImageError: there is none, or none that can be decoded.
    """
    cover = Disposition.attached_pic
    found = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not found:
        raise ImageError(f"{container.name} has no video stream")
    if found[0].codec_context is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise ImageError(f"{container.name}: its video codec cannot be decoded here")
    return found[0]


def probe(path: Path, *, max_pixels: int = MAX_FRAME_PIXELS) -> Clip:
    """Read the headers and the first frame of a video file.

    Raises:
        ImageError: no video, damaged before the first frame, or in a colour coding that
            cannot be converted.
        ImageTooLargeError: frames of more than ``max_pixels``.
    """
    with open_clip(path) as container:
        stream = main_stream(container)
        _check_size(path, stream.width, stream.height, max_pixels)
        first = next(_decode(container, stream), None)
        if first is None:
            raise ImageError(f"{path} has no frame that can be decoded")
        _check_size(path, first.width, first.height, max_pixels)
        rate = stream.average_rate or stream.guessed_rate
        time_base = stream.time_base
        if time_base is None:
            raise ImageError(f"{path} has no time base")
        names = {side.type.name for side in first.side_data}  # pyright: ignore
        offset = 0
        if container.format.name in _ANY_START and container.start_time:
            offset = round(Fraction(container.start_time, av.time_base) / time_base)
        return Clip(
            path=path,
            container=container.format.name,
            stream=stream.index,
            codec=stream.codec_context.codec.canonical_name,
            width=first.width,
            height=first.height,
            pixel_format=first.format.name.replace("yuvj", "yuv"),
            depth=max(component.bits for component in first.format.components),
            alpha=any(component.is_alpha for component in first.format.components),
            rate=rate if rate and 0 < rate <= 1000 else None,
            time_base=time_base,
            frames=stream.frames or _guess_frames(container, rate),
            offset=offset,
            sample_aspect_ratio=stream.sample_aspect_ratio or None,
            colour=_colour(first, path),
            mastering=_mastering(first),
            display_matrix=_display_matrix(first),
            notes=tuple(_notes(first, names)),
        )


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{path} has frames of {width * height / 1e6:.0f} megapixels, the limit is "
            f"{max_pixels / 1e6:.0f}; lift it with --max-megapixels"
        )


def _guess_frames(container: InputContainer, rate: Fraction | None) -> int:
    if container.duration is None or not rate:
        return 0
    return max(0, round(Fraction(container.duration, av.time_base) * rate))


def _colour(frame: VideoFrame, path: Path) -> Colour:
    matrix = int(frame.colorspace)
    if matrix not in (*_MATRICES, UNTAGGED, RGB):
        raise ImageError(f"{path} codes colour by matrix {matrix}, which cannot be converted here")
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
        yield "the clip is interlaced and is enlarged as if it were not; deinterlace it first"
    if side_data & {"DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID", "DOVI_METADATA", "DOVI_RPU_BUFFER"}:
        yield "dynamic HDR metadata is not kept; static metadata and colour tags are"
    if "A53_CC" in side_data:
        yield "closed captions inside the video stream are not kept"


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames that can be decoded; what is damaged is left out, as players do."""
    stream.thread_type = "AUTO"  # pyright: ignore[reportAttributeAccessIssue]
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            # The file ends in the middle, or is rubbish from here on.
            packet = None
        try:
            yield from stream.decode(packet)
        except FFmpegError:
            if packet is None:
                return
            continue
        if packet is None:
            return


def read_frames(clip: Clip, *, start: int = 0) -> Iterator[TimedPixels]:
    """Decode a clip.

    Args:
        clip: from :func:`probe`.
        start: frames before this one are decoded but not converted and not given.

    Yields:
        Frames in order of presentation.

    Raises:
        ImageError: the file cannot be read, or its frames change size.
    """
    step = max(1, round(1 / (clip.rate or 25) / clip.time_base))
    converter = Converter(clip)
    last: int | None = None
    before: Pixels | None = None
    with open_clip(clip.path) as container:
        stream = main_stream(container)
        for index, frame in enumerate(_decode(container, stream)):
            if (frame.width, frame.height) != (clip.width, clip.height):
                raise ImageError(
                    f"{clip.path} changes from {clip.width}x{clip.height} to "
                    f"{frame.width}x{frame.height} at frame {index}; cut it there"
                )
            pts = frame.pts
            if pts is None:
                pts = 0 if last is None else last + step
            else:
                pts -= clip.offset
            if last is not None and pts <= last:
                pts = last + 1
            last = pts
            if index < start:
                continue
            pixels = converter.to_rgb(frame)
            same = before is not None and np.array_equal(pixels, before)
            before = pixels
            yield TimedPixels(index, pts, int(frame.duration or step), None if same else pixels)


class Converter:
    """From the clip's YUV to RGB and back, by the stream's own matrix and range.

    Untagged clips are converted by :func:`guessed_matrix`, and taken for limited range.
    Codes outside of the RGB cube (above white, below black) are clipped. Chroma is read where
    the stream says that it lies, and written at the left, where players look for it.

    Args:
        clip: whose tags count.
    """

    def __init__(self, clip: Clip) -> None:
        self._format = clip.array_format
        colour = clip.colour
        guess = _MATRICES[guessed_matrix(clip.width, clip.height)]
        self._matrix = _MATRICES.get(colour.matrix, guess)
        self._range = ColorRange.JPEG if colour.full_range else ColorRange.MPEG
        self._forth, self._back = VideoReformatter(), VideoReformatter()

    def to_rgb(self, frame: VideoFrame) -> Pixels:
        """The pixels of a decoded frame, ``(H, W, 3 or 4)`` uint8 or uint16, full range."""
        options: dict[str, Any] = {}
        if frame.format.components[0].is_luma and not frame.format.is_rgb:
            options = {"src_colorspace": self._matrix, "src_color_range": self._range}
        rgb = self._forth.reformat(
            frame, format=self._format, interpolation=_EXACT, threads=1, **options
        )
        pixels: Any = rgb.to_ndarray()
        return pixels

    def from_rgb(self, pixels: Pixels, pixel_format: str) -> VideoFrame:
        """A frame in ``pixel_format`` of ``(H, W, 3 or 4)`` pixels as :meth:`to_rgb` gives them."""
        array: Any = pixels
        frame = VideoFrame.from_ndarray(array, format=self._format)
        options: dict[str, Any] = {}
        if not av.VideoFormat(pixel_format).is_rgb:
            options = {"dst_colorspace": self._matrix, "dst_color_range": self._range}
        return self._back.reformat(
            frame, format=pixel_format, interpolation=_EXACT, threads=1, **options
        )
