"""Planning how a clip is written: everything is settled, or refused, before any work is done."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition, Stream

from paragonsr2.clips.clip import MAX_FRAME_PIXELS, Clip, describe
from paragonsr2.clips.codecs import CODECS, SOFTWARE
from paragonsr2.clips.container import open_clip
from paragonsr2.clips.encode import Encoding, choose_codec, plan_encoding
from paragonsr2.errors import OptionError, OutputError


@dataclass(frozen=True)
class ContainerRow:
    """A container format that can be written.

    Attributes:
        muxer: FFmpeg's name.
        codecs: the streams it can hold, from
            :attr:`CodecRow.stream <paragonsr2.clips.codecs.CodecRow.stream>`.
        global_header: it stores parameter sets in its header.
        attachments: it can hold attached files (fonts, covers).
        aspect: it records the pixel aspect ratio; PyAV cannot make Matroska do so.
    """

    muxer: str
    codecs: tuple[str, ...]
    global_header: bool = True
    attachments: bool = False
    aspect: bool = True


_MP4 = ContainerRow("mp4", ("h264", "hevc", "av1"))
_MKV = ContainerRow("matroska", SOFTWARE, attachments=True, aspect=False)

#: The containers to choose from by name; each is a suffix in :data:`CONTAINERS`, without its dot.
ContainerName = Literal["mp4", "mov", "mkv", "webm"]

#: The containers that can be written, by file suffix.
CONTAINERS: Mapping[str, ContainerRow] = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": ContainerRow("mov", ("h264", "hevc", "prores")),
    ".mkv": _MKV,
    ".webm": ContainerRow("webm", ("av1",), aspect=False),
}

#: The container for clips from any other one: Matroska can hold nearly everything.
FALLBACK_SUFFIX = ".mkv"


def target_suffix(source: Path) -> str:
    """The suffix of the result: the source's own if that container can be written."""
    return source.suffix if source.suffix.lower() in CONTAINERS else FALLBACK_SUFFIX


def container_row(target: Path) -> ContainerRow:
    """The container that a file's suffix stands for.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        return CONTAINERS[target.suffix.lower()]
    except KeyError:
        known = ", ".join(CONTAINERS)
        raise OutputError(f"cannot write '{target.suffix}' video; choose from {known}") from None


@dataclass(frozen=True)
class CopyPlan:
    """Which streams of the source are copied.

    Attributes:
        streams: indices of streams whose packets are copied.
        covers: indices of cover pictures that become attachments.
        notes: what cannot be kept, one sentence each.
    """

    streams: tuple[int, ...]
    covers: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ClipPlan:
    """What is read, how it is coded and what is copied: the whole of a video job but the pixels.

    Attributes:
        clip: the source.
        target: the file to write.
        container: its container.
        encoding: settings of the encoder.
        copy: streams that are copied.
        notes: what the result will lose, one sentence each.
    """

    clip: Clip
    target: Path
    container: ContainerRow
    encoding: Encoding
    copy: CopyPlan
    notes: tuple[str, ...]


def plan_clip(
    source: Path,
    target: Path,
    scale: int,
    *,
    codec: str | None = None,
    quality: int | None = None,
    preset: str | None = None,
    extra: Mapping[str, str] | None = None,
    gop: int,
    max_pixels: int = MAX_FRAME_PIXELS,
) -> ClipPlan:
    """Open the source once and plan the whole job.

    Args:
        source: the clip.
        target: the file to write; its suffix chooses the container.
        scale: enlargement.
        codec: a key of :data:`~paragonsr2.clips.codecs.CODECS`; None for
            :func:`~paragonsr2.clips.encode.choose_codec`.
        quality: see :func:`~paragonsr2.clips.encode.plan_encoding`.
        preset: see there.
        extra: see there.
        gop: see there.
        max_pixels: largest frame that is accepted.

    Raises:
        InputError: the source cannot be read, or its frames are too large.
        OptionError: the codec or the container cannot hold the clip.
        OutputError: the container cannot be written.
    """
    row = container_row(target)
    with open_clip(source) as container:
        clip = describe(container, source, max_pixels=max_pixels)
        chosen = _codec(clip, row, codec)
        encoding = plan_encoding(
            clip,
            scale,
            chosen,
            quality=quality,
            preset=preset,
            extra=extra,
            gop=gop,
            global_header=row.global_header,
        )
        copy = _plan_copy(container, clip, row)
    notes = [*clip.notes, *copy.notes]
    if codec is None and clip.codec in CODECS and chosen != clip.codec:
        notes.append(f"{row.muxer} cannot keep {clip.codec} here; coded as {chosen} instead")
    if chosen == "prores" and clip.depth > 10:
        notes.append(f"ProRes stores 10 bits of the clip's {clip.depth}")
    return ClipPlan(clip, target, row, encoding, copy, tuple(notes))


def _codec(clip: Clip, row: ContainerRow, wanted: str | None) -> str:
    """The codec to use.

    Raises:
        OptionError: the container cannot hold it, or cannot hold the clip in any codec.
    """
    square = clip.sample_aspect_ratio in (None, 1)
    fitting = tuple(name for name in row.codecs if square or row.aspect or CODECS[name].aspect)
    if not fitting:
        raise OptionError(
            f"{row.muxer} cannot keep the pixel aspect {clip.sample_aspect_ratio} of "
            f"{clip.path.name}; give -o a name that ends in .mkv or .mp4"
        )
    named = CODECS.get(wanted) if wanted is not None else None
    stream = named.stream if named is not None else None
    if stream is not None and stream not in fitting:
        why = "" if stream not in row.codecs else f" with pixel aspect {clip.sample_aspect_ratio}"
        raise OptionError(
            f"{row.muxer} cannot hold {wanted}{why}; use --codec {' or '.join(fitting)}, "
            f"or another container (-o)"
        )
    return wanted or choose_codec(clip, fitting)


def _plan_copy(source: InputContainer, clip: Clip, row: ContainerRow) -> CopyPlan:
    """Decide about every stream beside the enlarged one.

    Raises:
        OptionError: the container cannot hold a sound, subtitle or attachment stream.
    """
    copied: list[int] = []
    covers: list[int] = []
    notes: list[str] = []
    for stream in source.streams:
        if stream.index == clip.stream or _is_rebuilt(stream, source):
            continue
        if isinstance(stream, AudioStream) and not getattr(stream, "sample_rate", 0):
            notes.append(f"stream {stream.index} ({_name(stream)}) is empty and was left out")
        elif stream.disposition & Disposition.attached_pic and row.attachments:
            covers.append(stream.index)
        elif _can_hold(row, stream):
            copied.append(stream.index)
        elif stream.type in ("audio", "subtitle", "attachment", "video"):
            raise OptionError(
                f"{row.muxer} cannot hold stream {stream.index} of {clip.path.name} "
                f"({_name(stream)}); give -o a name that ends in .mkv"
            )
        else:
            notes.append(
                f"{row.muxer} cannot hold stream {stream.index} ({_name(stream)}); it was left out"
            )
    return CopyPlan(tuple(copied), tuple(covers), tuple(notes))


def _name(stream: Stream) -> str:
    name = getattr(stream, "name", None)
    return f"{stream.type}, {name}" if name else stream.type


def _is_rebuilt(stream: Stream, source: InputContainer) -> bool:
    """Whether the muxer makes this stream again from other data that is kept.

    QuickTime stores chapters and time codes as tracks. FFmpeg reads chapter tracks into the
    chapters and marks them as discarded; time codes it reads into the metadata.
    """
    if stream.type != "data" or not source.format.name.startswith("mov"):
        return False
    chapters = stream.discard == Discard.all and bool(source.chapters())
    return chapters or "timecode" in stream.metadata


def _can_hold(row: ContainerRow, stream: Stream) -> bool:
    """Whether the container can hold the stream; only a trial tells reliably."""
    try:
        with av.open(io.BytesIO(), "w", format=row.muxer) as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (FFmpegError, ValueError):
        return False
    return True
