"""Making segments of a clip: decode, enlarge, steady and encode at the same time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from paragonsr2.arrays.pixels import Pixels, to_8_bits, to_16_bits
from paragonsr2.clips.clip import Clip
from paragonsr2.clips.encode import CodedPacket, Encoding, SegmentEncoder
from paragonsr2.clips.frames import Converter, TimedPixels
from paragonsr2.upscale.background import in_background, in_order
from paragonsr2.upscale.resources import available_memory, cores
from paragonsr2.upscale.team import engines_of
from paragonsr2.upscale.temporal import Steadier
from paragonsr2.upscale.upscaler import Upscaler

# Decoded frames that may wait for the network, and enlarged ones that may wait for the next step.
_DECODED_AHEAD, _ENLARGED_AHEAD = 4, 2

# Frames that are enlarged side by side where an engine can be divided.
_FRAMES = 2

# A frame and its enlarged pixels; None if they equal those of the previous frame.
_Enlarged = tuple[TimedPixels, Pixels | None]


@dataclass(frozen=True)
class Segment:
    """A coded run of frames that can be decoded on its own.

    Attributes:
        header: parameter sets of its encoder.
        packets: one a frame, in decoding order.
    """

    header: bytes
    packets: list[CodedPacket]


def _side_by_side(upscaler: Upscaler, clip: Clip) -> tuple[Upscaler, int]:
    """What enlarges frames, and how many of them at once.

    Threads that divide a frame wait for each other whenever another stage of the work takes a core
    from one of them. Where an engine can be divided and memory suffices, each half of the cores has
    a frame of its own.
    """
    engines = engines_of(upscaler.backend)
    needed = _FRAMES * clip.width * clip.height * upscaler.backend.bytes_per_pixel
    if engines > 1 or cores() < _FRAMES or needed > available_memory() // 2:
        return upscaler, engines
    divided = upscaler.divided(_FRAMES)
    return (upscaler, engines) if divided is None else (divided, _FRAMES)


class SegmentMaker:
    """Makes segments of a clip; the same frames always give the same bytes.

    Args:
        clip: the source.
        encoding: settings of the encoder.
        upscaler: enlarges the frames.
        tile: side of a tile in input pixels; None for the whole frame.
        steadier: removes flicker; None to leave the frames as they are.
        size: frames of a segment.

    Attributes:
        repeated: frames that equalled the previous one and were not computed.
    """

    def __init__(
        self,
        clip: Clip,
        encoding: Encoding,
        upscaler: Upscaler,
        tile: int | None,
        steadier: Steadier | None,
        size: int,
    ) -> None:
        self.clip, self.encoding, self.size = clip, encoding, size
        self.tile, self.steadier = tile, steadier
        self._upscaler, self._engines = _side_by_side(upscaler, clip)
        self.repeated = 0

    def needs(self, first: int) -> int:
        """The frame to read from so that segments can start at frame ``first``."""
        # A frame is steadied by the previous one, which therefore has to be computed again.
        return max(first - 1, 0) if self.steadier else first

    def make(
        self, frames: Iterator[TimedPixels], first: int, after_frame: Callable[[], None]
    ) -> Generator[Segment]:
        """Decode, enlarge and steady in threads of their own, and encode in this one.

        Args:
            frames: from :meth:`needs` on.
            first: index of the first frame to code, a multiple of the segments' size.
            after_frame: called when a frame is coded; an exception that it raises ends the work.

        Yields:
            The segments; the last one ends with the frames.

        Raises:
            InputError: the source cannot be read.
            OutputError: the encoder failed.
        """
        decoded = in_background(frames, _DECODED_AHEAD)
        enlarged = in_background(self._enlarge(decoded), _ENLARGED_AHEAD)
        if self.steadier:
            steadied = self._steady(enlarged, self.steadier, first)
            enlarged = in_background(steadied, _ENLARGED_AHEAD)
        with closing(enlarged):
            coded = self._as_frames(enlarged)
            for _, segment in groupby(coded, key=lambda item: item[0].index // self.size):
                yield self._encode(segment, after_frame)

    def _enlarge(self, decoded: Generator[TimedPixels]) -> Generator[_Enlarged]:
        def enlarged(frame: TimedPixels) -> _Enlarged:
            if frame.pixels is None:
                return frame, None
            pixels = to_16_bits(frame.pixels) if self.steadier else frame.pixels
            return frame, self._upscaler(pixels, tile=self.tile)

        with closing(decoded):
            yield from in_order(enlarged, decoded, self._engines)

    def _steady(
        self, enlarged: Generator[_Enlarged], steadier: Steadier, first: int
    ) -> Generator[_Enlarged]:
        """Steady each frame by the previous one.

        The result depends on these two frames alone, even at the start of a segment, where an
        interrupted job resumes with the previous frame.
        """
        small: Any = None
        large: Any = None
        with closing(enlarged):
            for frame, pixels in enlarged:
                steadied: Any = pixels
                if pixels is None:
                    if frame.index % self.size == 0:
                        steadied = large
                else:
                    if large is not None:
                        steadied = steadier((small, frame.pixels), (large, pixels))
                    small, large = frame.pixels, pixels
                if frame.index < first:
                    continue
                if steadied is not None and self.clip.depth <= 8:
                    steadied = to_8_bits(steadied)
                yield frame, steadied

    def _as_frames(self, enlarged: Iterable[_Enlarged]) -> Iterator[tuple[TimedPixels, Any]]:
        converter = Converter(self.clip)
        frame: Any = None
        for timed, pixels in enlarged:
            self.repeated += timed.pixels is None
            if pixels is not None:
                frame = converter.from_rgb(pixels, self.encoding.pixel_format)
            yield timed, frame

    def _encode(
        self, segment: Iterable[tuple[TimedPixels, Any]], after_frame: Callable[[], None]
    ) -> Segment:
        encoder = SegmentEncoder(self.encoding)
        packets: list[CodedPacket] = []
        for timed, frame in segment:
            packets += encoder.encode(frame, timed.pts, timed.duration)
            after_frame()
        packets += encoder.finish()
        return Segment(encoder.header, packets)
