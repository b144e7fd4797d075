"""A video job: decode, enlarge and encode at the same time, in segments that survive a kill."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from paragonsr2.clips.clip import MAX_FRAME_PIXELS
from paragonsr2.clips.damage import Damage, broken_chain
from paragonsr2.clips.frames import read_frames
from paragonsr2.clips.plan import ClipPlan, plan_clip
from paragonsr2.clips.remux import remux
from paragonsr2.clips.segments import SegmentStore, locked, work_folder
from paragonsr2.errors import ImageError, MissingExtraError, UsageError
from paragonsr2.upscale.segment import SegmentMaker
from paragonsr2.upscale.temporal import Steadier
from paragonsr2.upscale.upscaler import EngineFacts, Upscaler
from paragonsr2.version import __version__

#: Frames of a segment: the most that is lost when a job is interrupted, and the maximum distance
#: of key frames.
SEGMENT_FRAMES = 120

#: Whether frames are steadied; ``auto`` does so if OpenCV is installed.
Temporal = Literal["auto", "on", "off"]


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
    steadier, unsteady = open_steadier(options.temporal, upscaler.scale)
    with video_job(plan, upscaler.facts, steadier_digest(steadier)) as job:
        maker = SegmentMaker(
            plan.clip, plan.encoding, upscaler, job.tile, steadier, options.segment
        )
        damage = _compute(job, maker, options.max_frames or sys.maxsize, progress)
        return job.finish(damage, repeated=maker.repeated, strict=options.strict, notes=unsteady)


def _compute(
    job: VideoJob,
    maker: SegmentMaker,
    limit: int,
    progress: Callable[[VideoProgress], None] | None,
) -> Damage:
    """Make the segments that are not finished yet; return what is wrong with the whole clip."""
    clip, store, damage = job.plan.clip, job.store, Damage()
    done = job.resumed

    def report() -> None:
        if progress is not None:
            progress(VideoProgress(done, clip.frames, job.resumed, store.frames))

    def after_frame() -> None:
        nonlocal done
        done += 1
        if done > limit:
            raise ImageError(f"{clip.path} has more than {limit} frames, which is the limit")
        report()

    if job.resumed:
        report()
    frames = read_frames(clip, start=maker.needs(done), damage=damage)
    with closing(maker.make(frames, done, after_frame)) as segments:
        for segment in segments:
            store.append(segment.header, segment.packets)
            report()
    return damage


@dataclass(frozen=True)
class VideoJob:
    """A clip whose segments are being made, by whomever; its work folder is locked.

    Attributes:
        plan: from :func:`plan_video`.
        store: takes the segments, in order.
        tile: to compute with; None for the whole frame.
        resumed: frames that an earlier run had finished.
        why: why an earlier run cannot be resumed; empty if it is, or if there was none.
    """

    plan: ClipPlan
    store: SegmentStore
    tile: int | None
    resumed: int
    why: str

    def finish(
        self, damage: Damage, *, repeated: int, strict: bool, notes: tuple[str, ...] = ()
    ) -> VideoResult:
        """Write the result, when all segments are there.

        Args:
            damage: of the clip, from its beginning to its end.
            repeated: see :class:`VideoResult`.
            strict: refuse a damaged clip.
            notes: more notes for the result.

        Raises:
            ImageError: the clip is damaged, and ``strict`` is set.
            OutputError: the result cannot be written.
        """
        plan, store = self.plan, self.store
        damage.cut = damage.cut or _broken_chain(plan.clip.path)
        found = damage.notes()
        if found and strict:
            raise ImageError(f"{plan.clip.path}: {found[0]}; leave out --strict to keep them")
        part = store.folder / f"result{plan.target.suffix}"
        frames = store.frames
        remux(plan, part, store.header, store, store.reorder)
        store.publish(part, plan.target)
        why = (f"started over because {self.why}",) if self.why else ()
        return VideoResult(
            width=plan.encoding.width,
            height=plan.encoding.height,
            frames=frames,
            repeated=repeated,
            resumed=self.resumed,
            codec=plan.encoding.codec,
            notes=(*plan.notes, *notes, *why),
            damage=found,
        )


@contextmanager
def video_job(plan: ClipPlan, facts: EngineFacts, temporal: str) -> Generator[VideoJob]:
    """Lock the work folder of a clip, and resume what is in it or start over.

    Args:
        plan: from :func:`plan_video`.
        facts: of the upscaler that makes the segments.
        temporal: :func:`steadier_digest` of the steadier that does.

    Raises:
        ImageError: the source cannot be read.
        OutputError: the folder cannot be written, or another job is writing the result.
    """
    folder = work_folder(plan.target)
    with locked(folder):
        store = SegmentStore(folder)
        tile = _tile(facts, store)
        why = store.begin(_identity(plan, facts, tile, temporal))
        yield VideoJob(plan, store, tile, store.frames, why)


def _broken_chain(path: Path) -> str:
    try:
        return broken_chain(path)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error


def steadier_digest(steadier: Steadier | None) -> str:
    """What a steadier, or none, adds to the identity of a job."""
    return steadier.digest if steadier else "off"


def open_steadier(wanted: Temporal, scale: int) -> tuple[Steadier | None, tuple[str, ...]]:
    """The steadier, if any, and a note if there is none although it would be welcome.

    Args:
        wanted: whether frames are steadied.
        scale: enlargement.

    Raises:
        MissingExtraError: it is wanted, and OpenCV is not installed.
    """
    if wanted == "off":
        return None, ()
    try:
        return Steadier(scale), ()
    except MissingExtraError as error:
        if wanted == "on":
            raise
        return None, (f"frames are not steadied: {error}, or use --temporal off",)


def _tile(facts: EngineFacts, store: SegmentStore) -> int | None:
    """The tile to compute with; None for the upscaler's own.

    An automatic tile depends on the available memory, and the last bit of a pixel depends on the
    tile. A job that is resumed therefore keeps the tile of its first run.
    """
    before = store.identity().get("tile")
    return before if facts.automatic_tile and isinstance(before, int) else facts.tile


def _identity(
    plan: ClipPlan, facts: EngineFacts, tile: int | None, temporal: str
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
        "model": facts.digest,
        "engine": facts.engine,
        "tile": tile,
        "options": str(plan.encoding),
        "temporal": temporal,
    }
