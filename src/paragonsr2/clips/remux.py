"""The result's file: the enlarged video stream with everything else of the source beside it."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition, Stream

from paragonsr2.clips.clip import Clip
from paragonsr2.clips.container import open_clip, reason
from paragonsr2.clips.encode import CODECS, CodedPacket, Encoding, configure
from paragonsr2.clips.priority import ordinary_priority
from paragonsr2.errors import OptionError, OutputError


@dataclass(frozen=True)
class ContainerRow:
    """A container that is written.

    Attributes:
        muxer: FFmpeg's name.
        codecs: of :data:`CODECS` that it takes.
        global_header: it keeps parameter sets in its header.
        attachments: it takes attached files (fonts, covers).
        aspect: it says the aspect of a pixel; PyAV has no way to make Matroska do so.
    """

    muxer: str
    codecs: tuple[str, ...]
    global_header: bool = True
    attachments: bool = False
    aspect: bool = True


_MP4 = ContainerRow("mp4", ("h264", "hevc", "av1"))
_MKV = ContainerRow("matroska", tuple(CODECS), attachments=True, aspect=False)

#: Containers that are written, by suffix.
CONTAINERS: Mapping[str, ContainerRow] = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": ContainerRow("mov", ("h264", "hevc", "prores")),
    ".mkv": _MKV,
    ".webm": ContainerRow("webm", ("av1",), aspect=False),
}

#: What a clip in any other container becomes: Matroska takes nearly everything.
FALLBACK_SUFFIX = ".mkv"


def target_suffix(source: Path) -> str:
    """The suffix of a result that keeps the container where it is one that is written."""
    suffix = source.suffix.lower()
    return source.suffix if suffix in CONTAINERS else FALLBACK_SUFFIX


def container_row(target: Path) -> ContainerRow:
    """The container that a suffix names.

    Raises:
        OutputError: none that is written.
    """
    try:
        return CONTAINERS[target.suffix.lower()]
    except KeyError:
        known = ", ".join(CONTAINERS)
        raise OutputError(f"cannot write '{target.suffix}' video; take one of {known}") from None


def fitting_codecs(clip: Clip, row: ContainerRow) -> tuple[str, ...]:
    """The codecs in which the container can hold the clip.

    Raises:
        OptionError: none.
    """
    square = clip.sample_aspect_ratio in (None, 1)
    fitting = tuple(name for name in row.codecs if square or row.aspect or CODECS[name].aspect)
    if not fitting:
        raise OptionError(
            f"{row.muxer} here cannot keep the pixel aspect {clip.sample_aspect_ratio} of "
            f"{clip.path.name}; give -o with a name that ends in .mkv or .mp4"
        )
    return fitting


@dataclass(frozen=True)
class CopyPlan:
    """Which streams of the source are copied.

    Attributes:
        streams: indices of streams whose packets are copied.
        covers: indices of cover pictures that become attachments.
        notes: what cannot be kept, in words.
    """

    streams: tuple[int, ...]
    covers: tuple[int, ...]
    notes: tuple[str, ...]


def plan_copy(clip: Clip, row: ContainerRow) -> CopyPlan:
    """Find out, before any work is done, which streams the container takes.

    Raises:
        OptionError: it cannot take a sound, subtitle or attachment; another container can.
    """
    copied: list[int] = []
    covers: list[int] = []
    notes: list[str] = []
    with open_clip(clip.path) as source:
        for stream in source.streams:
            if stream.index == clip.stream:
                continue
            if _is_rebuilt(stream, source):
                continue
            if isinstance(stream, AudioStream) and not stream.sample_rate:
                notes.append(f"stream {stream.index} ({_describe(stream)}) is empty: left out")
                continue
            cover = stream.disposition & Disposition.attached_pic
            if cover and row.attachments:
                covers.append(stream.index)
            elif _takes(row, stream):
                copied.append(stream.index)
            elif stream.type in ("audio", "subtitle", "attachment", "video"):
                raise OptionError(
                    f"{row.muxer} cannot hold stream {stream.index} of {clip.path.name} "
                    f"({_describe(stream)}); give -o with a name that ends in .mkv"
                )
            else:
                notes.append(
                    f"stream {stream.index} ({_describe(stream)}) does not fit into "
                    f"{row.muxer} and is left out"
                )
    return CopyPlan(tuple(copied), tuple(covers), tuple(notes))


def _describe(stream: Stream) -> str:
    name = getattr(stream, "name", None)
    return f"{stream.type}, {name}" if name else stream.type


def _is_rebuilt(stream: Stream, source: InputContainer) -> bool:
    """Whether the muxer makes this stream anew from what is carried otherwise.

    QuickTime keeps chapters and time codes as tracks. FFmpeg reads the first into the chapters
    and marks the track as not to be read; the second it reads into the metadata.
    """
    if stream.type != "data" or not source.format.name.startswith("mov"):
        return False
    chapters = stream.discard == Discard.all and bool(source.chapters())
    return chapters or "timecode" in stream.metadata


def _takes(row: ContainerRow, stream: Stream) -> bool:
    """Whether the container can hold the stream: tried, because nothing else tells for sure."""
    try:
        with av.open(io.BytesIO(), "w", format=row.muxer) as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (FFmpegError, ValueError):
        return False
    return True


def remux(
    clip: Clip,
    target: Path,
    row: ContainerRow,
    encoding: Encoding,
    header: bytes,
    segments: Iterable[Sequence[CodedPacket]],
    reorder: int,
    copy: CopyPlan,
) -> None:
    """Write the result.

    Args:
        clip: the source.
        target: file to write; the caller moves it into place.
        row: its container.
        encoding: how the packets were coded.
        header: parameter sets that the packets were coded with.
        segments: the packets of all frames, in decoding order, by segment.
        reorder: the greatest :func:`reorder_depth` of the segments.
        copy: from :func:`plan_copy`.

    Raises:
        ImageError: the source cannot be read any more.
        OutputError: the container refuses something, or the disk is full.
    """
    try:
        with (
            open_clip(clip.path) as source,
            av.open(
                str(target),
                "w",
                format=row.muxer,
                container_options=_container_options(row, source),
                metadata_errors="surrogateescape",
            ) as result,
        ):
            outputs = _add_streams(source, result, clip, encoding, copy)
            result.metadata.update(source.metadata)
            if chapters := source.chapters():
                result.set_chapters(chapters)
            with ordinary_priority():
                result.start_encoding()
            video = outputs.pop(clip.stream)
            if (video.codec_context.extradata or b"") != header:
                raise OutputError(
                    f"the encoder {CODECS[encoding.codec].encoder} does not repeat itself; "
                    f"delete the work folder beside {target} and start again"
                )
            ours = _timed(segments, video, encoding, reorder)
            theirs = _copied(source, outputs, clip)
            for packet in _merged(ours, theirs):
                result.mux_one(packet)
    except FFmpegError as error:
        raise OutputError(f"cannot write {target.name}: {reason(error)}") from error


def _container_options(row: ContainerRow, source: InputContainer) -> dict[str, str]:
    # Without this, Matroska draws random identifiers, and no two runs give the same file.
    options = {"fflags": "+bitexact"}
    if row.muxer in ("mp4", "mov"):
        options["movflags"] = "+faststart"
        # Cameras write keys that iTunes never had; only the newer kind of tags takes them.
        if any("." in key for key in source.metadata):
            options["movflags"] += "+use_metadata_tags"
    return options


def _add_streams(
    source: InputContainer,
    result: OutputContainer,
    clip: Clip,
    encoding: Encoding,
    copy: CopyPlan,
) -> dict[int, Any]:
    """Make the result's streams in the source's order; by the source's index."""
    outputs: dict[int, Any] = {}
    for stream in source.streams:
        if stream.index == clip.stream:
            out: Any = result.add_stream(CODECS[encoding.codec].encoder, encoding.rate)
            configure(out.codec_context, encoding)
            out.time_base = encoding.time_base
            if clip.display_matrix is not None:
                out.set_display_matrix(_scaled(clip.display_matrix, encoding.width // clip.width))
            outputs[stream.index] = out
        elif stream.index in copy.covers:
            _attach(source, result, stream)
            continue
        elif stream.index in copy.streams:
            out = result.add_stream_from_template(stream, opaque=True)
            outputs[stream.index] = out
        else:
            continue
        out.metadata.update(stream.metadata)
        out.disposition = stream.disposition
    return outputs


def _scaled(matrix: tuple[int, ...], scale: int) -> list[int]:
    """The matrix for a larger picture: only its translation is counted in pixels."""
    return [value * scale if place in (6, 7) else value for place, value in enumerate(matrix)]


def _attach(source: InputContainer, result: OutputContainer, stream: Stream) -> None:
    """A cover picture, which Matroska keeps as an attached file."""
    kinds = {"mjpeg": ("jpg", "image/jpeg"), "png": ("png", "image/png")}
    suffix, mime = kinds.get(stream.codec_context.name, ("bin", "application/octet-stream"))
    with open_clip(Path(source.name)) as again:
        packet = next(iter(again.demux(again.streams[stream.index])))
        name = stream.metadata.get("filename", f"cover.{suffix}")
        result.add_attachment(name, stream.metadata.get("mimetype", mime), bytes(packet))


def _timed(
    segments: Iterable[Sequence[CodedPacket]], stream: Any, encoding: Encoding, reorder: int
) -> Iterator[Any]:
    """Packets for the muxer, with decoding times that rise over the borders of segments.

    A packet is decoded when the frame ``reorder`` places earlier is shown.
    """
    tick = max(1, round(1 / encoding.rate / encoding.time_base))
    shown: deque[int] = deque()
    for number, segment in enumerate(segments):
        order = sorted(packet.pts for packet in segment)
        if number == 0:
            shown.extend(order[0] - place * tick for place in range(reorder, 0, -1))
        shown.extend(order)
        for packet in segment:
            out: Any = av.Packet(packet.data)
            out.pts, out.dts, out.duration = packet.pts, shown.popleft(), packet.duration
            out.time_base = encoding.time_base
            out.is_keyframe = packet.key
            out.stream = stream
            yield out


def reorder_depth(segment: Sequence[CodedPacket]) -> int:
    """By how many places a packet of a segment stands before its turn to be shown."""
    rank = {pts: place for place, pts in enumerate(sorted(packet.pts for packet in segment))}
    return max((place - rank[packet.pts] for place, packet in enumerate(segment)), default=0)


def _copied(source: InputContainer, outputs: Mapping[int, Any], clip: Clip) -> Iterator[Any]:
    """The packets of all other streams in the order of the file, their clocks repaired."""
    last: dict[int, int] = {}
    wanted = [
        source.streams[index] for index in outputs if source.streams[index].type != "attachment"
    ]
    if not wanted:
        return
    shift = clip.offset * clip.time_base
    packets = source.demux(wanted)
    while True:
        try:
            packet: Any = next(packets, None)
        except FFmpegError:
            return  # the file ends in the middle, and with it the sound
        if packet is None:
            return
        if packet.size == 0 and packet.dts is None:
            continue
        index = packet.stream.index
        back = round(shift / packet.time_base)
        dts = packet.dts if packet.dts is not None else packet.pts
        dts = last.get(index, -1) + 1 if dts is None else dts - back
        # Lines of a subtitle may stand at the same time, sound may not.
        apart = 0 if packet.stream.type in ("subtitle", "data") else 1
        if index in last:
            dts = max(dts, last[index] + apart)
        pts = dts if packet.pts is None else max(packet.pts - back, dts)
        last[index] = packet.dts = dts
        packet.pts = pts
        packet.stream = outputs[index]
        yield packet


def _merged(ours: Iterator[Any], theirs: Iterator[Any]) -> Iterator[Any]:
    """Both by time, so that the muxer need not hold one back until the other comes."""

    def time(packet: Any) -> Fraction:
        return packet.dts * packet.time_base

    a, b = next(ours, None), next(theirs, None)
    while a is not None or b is not None:
        if b is None or (a is not None and time(a) <= time(b)):
            yield a
            a = next(ours, None)
        else:
            yield b
            b = next(theirs, None)
