"""From the frames of a clip to RGB arrays, and back."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from paragonsr2.arrays.pixels import Pixels
from paragonsr2.clips.clip import MATRICES, Clip, guessed_matrix
from paragonsr2.clips.container import decoded, main_stream, open_clip
from paragonsr2.clips.damage import Damage
from paragonsr2.errors import ImageError

# libswscale's defaults favour speed; with these flags YUV to RGB and back is (nearly) lossless.
_EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True)
class TimedPixels:
    """One frame.

    Attributes:
        index: position in the clip, from 0.
        pts: presentation time in ticks of the clip's time base; strictly increasing.
        duration: in ticks.
        pixels: ``(H, W, 3 or 4)`` uint8 or uint16, full-range RGB in the clip's own primaries
            and transfer; None if they equal those of the previous frame.
    """

    index: int
    pts: int
    duration: int
    pixels: Pixels | None


def read_frames(
    clip: Clip, *, start: int = 0, damage: Damage | None = None
) -> Iterator[TimedPixels]:
    """Decode a clip.

    Args:
        clip: from :func:`~paragonsr2.clips.clip.probe`.
        start: index of the first frame to yield; those before it are only decoded.
        damage: counts what cannot be decoded.

    Yields:
        Frames in order of presentation.

    Raises:
        ImageError: the file cannot be read, or the frame size changes.
    """
    with closing(FrameReader(clip, damage)) as reader:
        yield from reader.read(start)


@dataclass(frozen=True)
class _Decoded:
    index: int
    pts: int
    duration: int
    frame: VideoFrame


class FrameReader:
    """Decodes a clip once, forwards, and hands out runs of its frames.

    What a run yields depends on its bounds alone, and not on the runs before it.

    Args:
        clip: from :func:`~paragonsr2.clips.clip.probe`.
        damage: counts what cannot be decoded, from the beginning of the clip.
    """

    def __init__(self, clip: Clip, damage: Damage | None = None) -> None:
        self._clip = clip
        self._converter = Converter(clip)
        self._decoded = _decode(clip, damage)
        self._last: _Decoded | None = None

    def close(self) -> None:
        """Close the file."""
        self._decoded.close()

    def reaches(self, start: int) -> bool:
        """Whether a run may start at this frame: decoding has gone no further."""
        return self._last is None or start >= self._last.index

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[TimedPixels]:
        """Yield a run of frames in order of presentation.

        Args:
            start: index of its first frame, which :meth:`reaches`; those before it are only
                decoded.
            stop: index after its last frame; None for the end of the clip.

        Raises:
            ImageError: the file cannot be read, or the frame size changes.
        """
        if stop is not None and start >= stop:
            return
        before: Pixels | None = None
        for one in self._from(start):
            pixels = self._converter.to_rgb(one.frame)
            same = before is not None and np.array_equal(pixels, before)
            before = pixels
            yield TimedPixels(one.index, one.pts, one.duration, None if same else pixels)
            if one.index + 1 == stop:
                return

    def _from(self, start: int) -> Iterator[_Decoded]:
        # The last frame of a run may be the first of the next one, which it steadies.
        if self._last is not None and self._last.index == start:
            yield self._last
        for one in self._decoded:
            self._last = one
            if one.index >= start:
                yield one


def _decode(clip: Clip, damage: Damage | None) -> Generator[_Decoded]:
    """All frames of a clip, with time stamps that increase."""
    step = max(1, round(1 / (clip.rate or 25) / clip.time_base))
    last: int | None = None
    with open_clip(clip.path) as container:
        stream = main_stream(container)
        for index, frame in enumerate(decoded(container, stream, damage)):
            if (frame.width, frame.height) != (clip.width, clip.height):
                raise ImageError(
                    f"{clip.path} changes from {clip.width}x{clip.height} to "
                    f"{frame.width}x{frame.height} at frame {index}; split the clip there"
                )
            pts = frame.pts
            if pts is None:
                pts = 0 if last is None else last + step
            else:
                pts -= clip.offset
            if last is not None and pts <= last:
                pts = last + 1
            last = pts
            yield _Decoded(index, pts, int(frame.duration or step), frame)


class Converter:
    """Converts the clip's YUV to RGB and back with the stream's own matrix and range.

    An untagged clip is assumed to be of limited range, with the matrix of
    :func:`~paragonsr2.clips.clip.guessed_matrix`. Values outside the RGB cube (above white, below
    black) are clipped. The stream's chroma location is respected when reading; chroma is written
    at the left, the default of players.

    Args:
        clip: the clip whose tags apply.
    """

    def __init__(self, clip: Clip) -> None:
        self._format = clip.array_format
        colour = clip.colour
        guess = MATRICES[guessed_matrix(clip.width, clip.height)]
        self._matrix = MATRICES.get(colour.matrix, guess)
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
        """A frame in ``pixel_format`` from an array as :meth:`to_rgb` returns it, of any size."""
        array: Any = pixels
        frame = VideoFrame.from_ndarray(array, format=self._format)
        options: dict[str, Any] = {}
        if not av.VideoFormat(pixel_format).is_rgb:
            options = {"dst_colorspace": self._matrix, "dst_color_range": self._range}
        return self._back.reformat(
            frame, format=pixel_format, interpolation=_EXACT, threads=1, **options
        )
