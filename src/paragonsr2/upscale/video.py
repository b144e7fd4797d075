"""A video job: decode, enlarge and encode at the same time, in segments that survive a kill."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from paragonsr2.arrays.pixels import Pixels, to_8_bits, to_16_bits
from paragonsr2.clips.clip import MAX_FRAME_PIXELS
from paragonsr2.clips.damage import Damage, broken_chain
from paragonsr2.clips.encode import CodedPacket, SegmentEncoder
from paragonsr2.clips.frames import Converter, TimedPixels, read_frames
from paragonsr2.clips.plan import ClipPlan, plan_clip
from paragonsr2.clips.remux import remux
from paragonsr2.clips.segments import SegmentStore, locked, work_folder
from paragonsr2.errors import ImageError, MissingExtraError, UsageError
from paragonsr2.upscale.background import in_background
from paragonsr2.upscale.temporal import Steadier
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.version import __version__

#: Frames of a segment: the most that is lost when a job is interrupted, and the maximum distance
#: of key frames.
SEGMENT_FRAMES = 120

# Decoded frames that may wait for the network, and enlarged ones that may wait for the next step.
_DECODED_AHEAD, _ENLARGED_AHEAD = 4, 2

#: Whether frames are steadied; ``auto`` does so if OpenCV is installed.
Temporal = Literal["auto", "on", "off"]

# A frame and its enlarged pixels; None if they equal those of the previous frame.
_Enlarged = tuple[TimedPixels, Pixels | None]


@dataclass(frozen=True)
class VideoOptions:
    """How a clip is enlarged.

    Attributes:
        codec: a key of :data:`paragonsr2.clips.codecs.CODECS`; None keeps the clip's own if that
            is possible, see :func:`paragonsr2.clips.encode.choose_codec`.
        quality: 1..100, higher is better; None for the default.
        preset: a preset of the encoder; None for the default.
        encoder_options: more options of the encoder, by FFmpeg's names.
        segment: frames of a segment, at least 2.
        temporal: whether frames are steadied, see :mod:`paragonsr2.upscale.temporal`.
        max_pixels: largest frame that is accepted.
        max_frames: longest clip that is accepted, in frames; None for no limit.
        strict: refuse a damaged clip, when all of it has been decoded.
    """

    codec: str | None = None
    quality: int | None = None
    preset: str | None = None
    encoder_options: Mapping[str, str] = field(default_factory=dict[str, str])
    segment: int = SEGMENT_FRAMES
    temporal: Temporal = "auto"
    max_pixels: int = MAX_FRAME_PIXELS
    max_frames: int | None = None
    strict: bool = False


@dataclass(frozen=True)
class VideoProgress:
    """How far a job is.

    Attributes:
        done: frames that are enlarged and encoded, including those of an earlier run.
        total: frames of the clip; 0 if unknown.
        resumed: frames that an earlier run had finished.
        kept: frames in finished segments, which the next run need not compute again.
    """

    done: int
    total: int
    resumed: int
    kept: int


@dataclass(frozen=True)
class VideoResult:
    """The result of a job.

    Attributes:
        width, height: frame size in pixels.
        frames: number of frames.
        repeated: frames that equalled the previous one and were not computed again.
        resumed: frames that an earlier run had finished.
        codec: of the video stream.
        notes: what was lost, or why the job started over, one sentence each.
        damage: what was wrong with the source, one sentence each.
    """

    width: int
    height: int
    frames: int
    repeated: int
    resumed: int
    codec: str
    notes: tuple[str, ...]
    damage: tuple[str, ...]


def plan_video(
    source: Path, target: Path, scale: int, options: VideoOptions = VideoOptions()
) -> ClipPlan:
    """Open the source once and settle everything but the pixels, or refuse.

    Args:
        source: the clip.
        target: the file to write; its suffix chooses the container.
        scale: enlargement.
        options: codec and limits.

    Raises:
        InputError: the source cannot be read, or exceeds a limit.
        UsageError: the codec or the container cannot hold the clip.
        OutputError: the container cannot be written.
    """
    if options.segment < 2:
        raise UsageError(f"--segment {options.segment} is too short; use 2 or more")
    plan = plan_clip(
        source,
        target,
        scale,
        codec=options.codec,
        quality=options.quality,
        preset=options.preset,
        extra=options.encoder_options,
        gop=options.segment,
        max_pixels=options.max_pixels,
    )
    if options.max_frames is not None and plan.clip.frames > options.max_frames:
        raise ImageError(
            f"{source} has {plan.clip.frames} frames; the limit is {options.max_frames}"
        )
    return plan


def upscale_video(
    source: Path,
    target: Path,
    upscaler: Upscaler,
    options: VideoOptions = VideoOptions(),
    *,
    progress: Callable[[VideoProgress], None] | None = None,
) -> VideoResult:
    """Enlarge a video file; everything else in it is kept.

    See :func:`plan_video` and :func:`run_plan`, which this function calls one after the other.
    """
    plan = plan_video(source, target, upscaler.scale, options)
    return run_plan(plan, upscaler, options, progress=progress)


def run_plan(
    plan: ClipPlan,
    upscaler: Upscaler,
    options: VideoOptions = VideoOptions(),
    *,
    progress: Callable[[VideoProgress], None] | None = None,
) -> VideoResult:
    """Enlarge the clip of a plan.

    Work goes into a hidden folder beside the target, and the target is replaced when the result
    is complete. If the job is interrupted, the same call resumes it after the last finished
    segment, and the result is the same to the bit.

    Args:
        plan: from :func:`plan_video`, with the same options.
        upscaler: enlarges the frames.
        options: whether frames are steadied, and limits.
        progress: called after each frame and each segment, and at the start of a resumed job.

    Raises:
        InputError: the source cannot be read, exceeds a limit, or is damaged and ``strict`` is
            set.
        MissingExtraError: ``temporal`` is ``on`` and OpenCV is not installed.
        OutputError: the result cannot be written, or another job is writing it.
    """
    steadier, unsteady = _open_steadier(options.temporal, upscaler.scale)
    target, folder = plan.target, work_folder(plan.target)
    with locked(folder):
        store = SegmentStore(folder)
        tile = _tile(upscaler, store)
        why = store.begin(_identity(plan, upscaler, tile, steadier))
        run = _Run(plan, upscaler, tile, steadier, options, store, progress)
        run.compute()
        damage = run.damage.notes()
        if damage and options.strict:
            raise ImageError(f"{plan.clip.path}: {damage[0]}; leave out --strict to keep them")
        part = folder / f"result{target.suffix}"
        remux(plan, part, store.header, store, store.reorder)
        store.publish(part, target)
    notes = [*plan.notes, *unsteady, *([f"started over because {why}"] if why else [])]
    return VideoResult(
        width=plan.encoding.width,
        height=plan.encoding.height,
        frames=run.done,
        repeated=run.repeated,
        resumed=run.resumed,
        codec=plan.encoding.codec,
        notes=tuple(notes),
        damage=damage,
    )


def _broken_chain(path: Path) -> str:
    try:
        return broken_chain(path)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error


def _open_steadier(wanted: Temporal, scale: int) -> tuple[Steadier | None, tuple[str, ...]]:
    """The steadier, if any, and a note if there is none although it would be welcome."""
    if wanted == "off":
        return None, ()
    try:
        return Steadier(scale), ()
    except MissingExtraError as error:
        if wanted == "on":
            raise
        return None, (f"frames are not steadied: {error}, or use --temporal off",)


def _tile(upscaler: Upscaler, store: SegmentStore) -> int | None:
    """The tile to compute with; None for the upscaler's own.

    An automatic tile depends on the available memory, and the last bit of a pixel depends on the
    tile. A job that is resumed therefore keeps the tile of its first run.
    """
    before = store.identity().get("tile")
    return before if upscaler.automatic_tile and isinstance(before, int) else upscaler.tile


def _identity(
    plan: ClipPlan, upscaler: Upscaler, tile: int | None, steadier: Steadier | None
) -> dict[str, Any]:
    """Everything that determines the bytes of a segment."""
    path = plan.clip.path
    try:
        about = path.stat()
        with path.open("rb") as file:
            head = hashlib.sha256(file.read(1 << 20)).hexdigest()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    return {
        "version": __version__,
        "source": [about.st_size, about.st_mtime_ns, head],
        "model": upscaler.digest,
        "engine": upscaler.backend.name,
        "tile": tile,
        "options": str(plan.encoding),
        "temporal": steadier.digest if steadier else "off",
    }


class _Run:
    """One run over the frames that are not finished yet.

    Attributes:
        done: frames that are encoded, including those of earlier runs.
        resumed: frames that earlier runs had finished.
        repeated: frames of this run that equal the previous one and were not computed.
        damage: what cannot be decoded of the clip, from its beginning.
    """

    def __init__(
        self,
        plan: ClipPlan,
        upscaler: Upscaler,
        tile: int | None,
        steadier: Steadier | None,
        options: VideoOptions,
        store: SegmentStore,
        progress: Callable[[VideoProgress], None] | None,
    ) -> None:
        self.clip, self.encoding = plan.clip, plan.encoding
        self.upscaler, self.tile, self.steadier = upscaler, tile, steadier
        self.limit = options.max_frames or sys.maxsize
        self.size, self.store, self.progress = options.segment, store, progress
        self.done = self.resumed = store.frames
        self.repeated = 0
        self.damage = Damage()

    def compute(self) -> None:
        """Decode, enlarge and steady in threads of their own, and encode in this one."""
        if self.resumed:
            self._report()
        # A frame is steadied by the previous one, which therefore has to be computed again.
        start = max(self.resumed - 1, 0) if self.steadier else self.resumed
        frames = read_frames(self.clip, start=start, damage=self.damage)
        decoded = in_background(frames, _DECODED_AHEAD)
        enlarged = in_background(self._enlarge(decoded), _ENLARGED_AHEAD)
        if self.steadier:
            enlarged = in_background(self._steady(enlarged, self.steadier), _ENLARGED_AHEAD)
        with closing(enlarged):
            frames = self._as_frames(enlarged)
            for _, segment in groupby(frames, key=lambda item: item[0].index // self.size):
                self._encode(segment)
        self.damage.cut = self.damage.cut or _broken_chain(self.clip.path)

    def _enlarge(self, decoded: Generator[TimedPixels]) -> Generator[_Enlarged]:
        with closing(decoded):
            for frame in decoded:
                if frame.pixels is None:
                    yield frame, None
                else:
                    pixels = to_16_bits(frame.pixels) if self.steadier else frame.pixels
                    yield frame, self.upscaler(pixels, tile=self.tile)

    def _steady(self, enlarged: Generator[_Enlarged], steadier: Steadier) -> Generator[_Enlarged]:
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
            if self.done > self.limit:
                raise ImageError(
                    f"{self.clip.path} has more than {self.limit} frames, which is the limit"
                )
            self._report()
        packets += encoder.finish()
        self.store.append(encoder.header, packets)
        self._report()

    def _report(self) -> None:
        if self.progress is not None:
            kept = self.store.frames
            self.progress(VideoProgress(self.done, self.clip.frames, self.resumed, kept))
