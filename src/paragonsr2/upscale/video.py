"""A video job: decode, enlarge and encode side by side, in segments that survive a kill."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from paragonsr2.arrays.pixels import Pixels, to_8_bits, to_16_bits
from paragonsr2.clips.clip import MAX_FRAME_PIXELS, Clip, probe
from paragonsr2.clips.encode import (
    CODECS,
    CodedPacket,
    Encoding,
    SegmentEncoder,
    choose_codec,
    plan_encoding,
)
from paragonsr2.clips.frames import Converter, TimedPixels, read_frames
from paragonsr2.clips.remux import container_row, fitting_codecs, plan_copy, remux
from paragonsr2.clips.segments import SegmentStore, locked, work_folder
from paragonsr2.errors import ImageError, MissingExtraError, OptionError, UsageError
from paragonsr2.upscale.background import in_background
from paragonsr2.upscale.temporal import Steadier
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.version import __version__

#: Frames of a segment: what is lost at most when a job is killed, and the most frames from one
#: key frame to the next.
SEGMENT_FRAMES = 120

# Decoded frames that wait for the network, and enlarged ones that wait for the next step.
_AHEAD_SMALL, _AHEAD_LARGE = 4, 2

Temporal = Literal["auto", "on", "off"]

# A frame, and its pixels when enlarged; None where they equal those of the frame before.
_Enlarged = tuple[TimedPixels, Pixels | None]


@dataclass(frozen=True)
class VideoOptions:
    """How a clip is enlarged.

    Attributes:
        codec: ``h264``, ``hevc``, ``av1``, ``ffv1`` or ``prores``; None keeps the clip's own
            where it can be written, see :func:`paragonsr2.clips.encode.choose_codec`.
        quality: 1..100, higher is better; None for the default.
        preset: the encoder's own name; None for the default.
        segment: frames that are finished together, at least 2.
        temporal: whether frames are steadied, see :mod:`paragonsr2.upscale.temporal`;
            ``auto`` does it if OpenCV is installed.
        max_pixels: refuse clips with larger frames.
        max_frames: refuse longer clips; None for no limit.
    """

    codec: str | None = None
    quality: int | None = None
    preset: str | None = None
    segment: int = SEGMENT_FRAMES
    temporal: Temporal = "auto"
    max_pixels: int = MAX_FRAME_PIXELS
    max_frames: int | None = None


@dataclass(frozen=True)
class VideoProgress:
    """How far a job is.

    Attributes:
        done: frames that are enlarged and encoded, those of an earlier run included.
        total: frames of the clip, 0 if its file does not tell.
        resumed: frames that an earlier run had finished.
    """

    done: int
    total: int
    resumed: int


@dataclass(frozen=True)
class VideoResult:
    """What a job made.

    Attributes:
        width, height: of a frame.
        frames: how many.
        repeated: frames that equalled the one before and were not computed again.
        resumed: frames that an earlier run had finished.
        codec: of the video stream.
        notes: what was not kept, or why a job started over, in words.
    """

    width: int
    height: int
    frames: int
    repeated: int
    resumed: int
    codec: str
    notes: tuple[str, ...]


def upscale_video(
    source: Path,
    target: Path,
    upscaler: Upscaler,
    options: VideoOptions = VideoOptions(),
    *,
    progress: Callable[[VideoProgress], None] | None = None,
) -> VideoResult:
    """Enlarge a video file; everything else in it is kept.

    A job that was killed goes on from its last finished segment when it is called again with
    the same arguments, and the result is the same to the bit. Until the result is whole,
    ``target`` is as it was; the work lies in a hidden folder beside it.

    Args:
        source: the clip.
        target: the result; its suffix names the container.
        upscaler: what enlarges the frames.
        options: codec and limits.
        progress: called after each frame.

    Raises:
        InputError: the source cannot be read.
        UsageError: codec or container do not fit the clip.
        MissingExtraError: ``temporal`` is on, and OpenCV is not installed.
        OutputError: the result cannot be written, or another job is writing it.
    """
    if options.segment < 2:
        raise UsageError(f"a segment of {options.segment} frames is too short; give 2 or more")
    row = container_row(target)
    clip = probe(source, max_pixels=options.max_pixels)
    if options.max_frames is not None and clip.frames > options.max_frames:
        raise ImageError(f"{source} has {clip.frames} frames, the limit is {options.max_frames}")
    fitting = fitting_codecs(clip, row)
    codec = options.codec or choose_codec(clip, fitting)
    if codec in CODECS and codec not in fitting:
        why = "" if codec not in row.codecs else f" with pixel aspect {clip.sample_aspect_ratio}"
        raise OptionError(
            f"{row.muxer} does not hold {codec}{why}; take --codec {' or '.join(fitting)}, "
            f"or give -o another container"
        )
    encoding = plan_encoding(
        clip,
        upscaler.scale,
        codec,
        quality=options.quality,
        preset=options.preset,
        gop=options.segment,
        global_header=row.global_header,
    )
    copy = plan_copy(clip, row)
    steadier, unsteady = _open_steadier(options.temporal, upscaler.scale)
    folder = work_folder(target)
    with locked(folder):
        store = SegmentStore(folder)
        with _tile_of_before(upscaler, store):
            why = store.begin(_identity(clip, encoding, upscaler, steadier))
            job = _Job(clip, encoding, upscaler, steadier, options, store, progress)
            job.run()
        part = folder / f"result{target.suffix}"
        remux(clip, part, row, encoding, store.header, store, store.reorder, copy)
        store.publish(part, target)
    notes = [*clip.notes, *copy.notes, *unsteady]
    if options.codec is None and clip.codec in CODECS and codec != clip.codec:
        notes.append(f"{clip.codec} cannot be kept in {row.muxer} here; coded as {codec}")
    if codec == "prores" and clip.depth > 10:
        notes.append(f"ProRes is written with 10 bits of the clip's {clip.depth}")
    if why:
        notes.append(f"started over, because {why}")
    return VideoResult(
        width=encoding.width,
        height=encoding.height,
        frames=job.done,
        repeated=job.repeated,
        resumed=job.resumed,
        codec=codec,
        notes=tuple(notes),
    )


def _open_steadier(wanted: Temporal, scale: int) -> tuple[Steadier | None, tuple[str, ...]]:
    """What steadies frames, if anything does; what to say about it."""
    if wanted == "off":
        return None, ()
    try:
        return Steadier(scale), ()
    except MissingExtraError as error:
        if wanted == "on":
            raise
        return None, (f"frames are not steadied: {error}, or give --temporal off",)


def _identity(
    clip: Clip, encoding: Encoding, upscaler: Upscaler, steadier: Steadier | None
) -> dict[str, Any]:
    """Everything that decides the bytes of a segment."""
    try:
        about = clip.path.stat()
        with clip.path.open("rb") as file:
            head = hashlib.sha256(file.read(1 << 20)).hexdigest()
    except OSError as error:
        raise ImageError(f"cannot read {clip.path}: {error.strerror or error}") from error
    return {
        "version": __version__,
        "source": [about.st_size, about.st_mtime_ns, head],
        "model": upscaler.digest,
        "engine": upscaler.backend.name,
        "tile": upscaler.tile,
        "options": str(encoding),
        "temporal": steadier.digest if steadier else "off",
    }


@contextmanager
def _tile_of_before(upscaler: Upscaler, store: SegmentStore) -> Generator[None]:
    """Go on with the tile that an interrupted job had, if no other was asked for.

    An automatic tile depends on how much memory is free, and the last bit of a pixel on the
    tile.
    """
    tile = upscaler.tile
    before = store.identity().get("tile")
    if upscaler.automatic_tile and isinstance(before, int):
        upscaler.tile = before
    try:
        yield
    finally:
        upscaler.tile = tile


class _Job:
    """One run of the pipeline over what is not finished yet.

    Attributes:
        done: frames of finished segments.
        resumed: those of earlier runs.
        repeated: frames of this run that were not computed, because they equal the one before.
    """

    def __init__(
        self,
        clip: Clip,
        encoding: Encoding,
        upscaler: Upscaler,
        steadier: Steadier | None,
        options: VideoOptions,
        store: SegmentStore,
        progress: Callable[[VideoProgress], None] | None,
    ) -> None:
        self.clip, self.encoding = clip, encoding
        self.upscaler, self.steadier = upscaler, steadier
        self.most = options.max_frames or sys.maxsize
        self.size, self.store, self.progress = options.segment, store, progress
        self.done = self.resumed = store.frames
        self.repeated = 0

    def run(self) -> None:
        """Decode, enlarge and steady in threads of their own, and encode in this one."""
        # A frame is steadied by the one before it.
        start = max(self.resumed - 1, 0) if self.steadier else self.resumed
        decoded = in_background(read_frames(self.clip, start=start), _AHEAD_SMALL)
        enlarged = in_background(self._enlarge(decoded), _AHEAD_LARGE)
        if self.steadier:
            enlarged = in_background(self._steady(enlarged, self.steadier), _AHEAD_LARGE)
        with closing(enlarged):
            frames = self._as_frames(enlarged)
            for _, segment in groupby(frames, key=lambda item: item[0].index // self.size):
                self._encode(segment)

    def _enlarge(self, decoded: Generator[TimedPixels]) -> Generator[_Enlarged]:
        with closing(decoded):
            for frame in decoded:
                if frame.pixels is None:
                    yield frame, None
                else:
                    pixels = to_16_bits(frame.pixels) if self.steadier else frame.pixels
                    yield frame, self.upscaler(pixels)

    def _steady(self, enlarged: Generator[_Enlarged], steadier: Steadier) -> Generator[_Enlarged]:
        """Steady each frame by the one before it.

        What comes out depends on these two alone, also where a segment begins: there a job may
        have been killed, and goes on with the frame before.
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
                if frame.index < self.resumed:
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

    def _encode(self, segment: Iterable[tuple[TimedPixels, Any]]) -> None:
        encoder = SegmentEncoder(self.encoding)
        packets: list[CodedPacket] = []
        for timed, frame in segment:
            packets += encoder.encode(frame, timed.pts, timed.duration)
            self.done += 1
            if self.done > self.most:
                raise ImageError(f"{self.clip.path} has more than {self.most} frames, the limit")
            if self.progress is not None:
                self.progress(VideoProgress(self.done, self.clip.frames, self.resumed))
        packets += encoder.finish()
        self.store.append(encoder.header, packets)
