"""Writing the result: the enlarged video stream and everything else of the source."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.stream import Stream

from paragonsr2.clips.clip import Clip
from paragonsr2.clips.codecs import CODECS
from paragonsr2.clips.container import open_clip, reason
from paragonsr2.clips.encode import CodedPacket, Encoding, configure
from paragonsr2.clips.opening import opening_encoder
from paragonsr2.clips.plan import ClipPlan, ContainerRow
from paragonsr2.errors import OutputError


def remux(
    plan: ClipPlan,
    target: Path,
    header: bytes,
    segments: Iterable[Sequence[CodedPacket]],
    reorder: int,
) -> None:
    """Write the result.

    Args:
        plan: of the job.
        target: the file to write; the caller moves it to ``plan.target``.
        header: the parameter sets that the packets were coded with.
        segments: the packets of all frames in decoding order, segment by segment.
        reorder: the largest :func:`reorder_depth` of the segments.

    Raises:
        ImageError: the source can no longer be read.
        OutputError: the container rejects something, or the disk is full.
    """
    clip, encoding = plan.clip, plan.encoding
    try:
        with (
            open_clip(clip.path) as source,
            av.open(
                str(target),
                "w",
                format=plan.container.muxer,
                container_options=_container_options(plan.container, source),
                metadata_errors="surrogateescape",
            ) as result,
        ):
            outputs = _add_streams(source, result, plan)
            result.metadata.update(source.metadata)
            if chapters := source.chapters():
                result.set_chapters(chapters)
            with opening_encoder():
                result.start_encoding()
            video = outputs.pop(clip.stream)
            if (video.codec_context.extradata or b"") != header:
                raise OutputError(
                    f"the encoder {CODECS[encoding.codec].encoder} is not reproducible here; "
                    f"delete the work folder beside {plan.target} and start again"
                )
            ours = _timed(segments, video, encoding, reorder)
            theirs = _copied(source, outputs, clip)
            for packet in _merged(ours, theirs):
                result.mux_one(packet)
    except FFmpegError as error:
        raise OutputError(f"cannot write {target.name}: {reason(error)}") from error


def _container_options(row: ContainerRow, source: InputContainer) -> dict[str, str]:
    # Without this, Matroska draws random identifiers, and every run gives another file.
    options = {"fflags": "+bitexact"}
    if row.muxer in ("mp4", "mov"):
        options["movflags"] = "+faststart"
        # Cameras write keys that iTunes tags cannot hold; QuickTime metadata tags can.
        if any("." in key for key in source.metadata):
            options["movflags"] += "+use_metadata_tags"
    return options


def _add_streams(source: InputContainer, result: OutputContainer, plan: ClipPlan) -> dict[int, Any]:
    """Create the result's streams in the order of the source; keyed by the source's index."""
    clip, encoding, copy = plan.clip, plan.encoding, plan.copy
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
    """The display matrix of the enlarged clip: only its translation is in pixels."""
    return [value * scale if place in (6, 7) else value for place, value in enumerate(matrix)]


def _attach(source: InputContainer, result: OutputContainer, stream: Stream) -> None:
    """Attach a cover picture: Matroska stores covers as attached files."""
    kinds = {"mjpeg": ("jpg", "image/jpeg"), "png": ("png", "image/png")}
    suffix, mime = kinds.get(stream.codec_context.name, ("bin", "application/octet-stream"))
    with open_clip(Path(source.name)) as again:
        packet = next(iter(again.demux(again.streams[stream.index])))
        name = stream.metadata.get("filename", f"cover.{suffix}")
        result.add_attachment(name, stream.metadata.get("mimetype", mime), bytes(packet))


def _timed(
    segments: Iterable[Sequence[CodedPacket]], stream: Any, encoding: Encoding, reorder: int
) -> Iterator[Any]:
    """Packets for the muxer, with decoding times that increase across segments.

    Each packet's decoding time is the presentation time of the frame ``reorder`` places earlier.
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
    """The largest number of places by which a packet precedes its order of presentation."""
    rank = {pts: place for place, pts in enumerate(sorted(packet.pts for packet in segment))}
    return max((place - rank[packet.pts] for place, packet in enumerate(segment)), default=0)


def _copied(source: InputContainer, outputs: Mapping[int, Any], clip: Clip) -> Iterator[Any]:
    """The packets of all other streams in file order, with non-monotonic times repaired."""
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
            return  # the file is cut short, and so is the sound
        if packet is None:
            return
        if packet.size == 0 and packet.dts is None:
            continue
        index = packet.stream.index
        back = round(shift / packet.time_base)
        dts = packet.dts if packet.dts is not None else packet.pts
        dts = last.get(index, -1) + 1 if dts is None else dts - back
        # Subtitles may share a time stamp, sound may not.
        apart = 0 if packet.stream.type in ("subtitle", "data") else 1
        if index in last:
            dts = max(dts, last[index] + apart)
        pts = dts if packet.pts is None else max(packet.pts - back, dts)
        last[index] = packet.dts = dts
        packet.pts = pts
        packet.stream = outputs[index]
        yield packet


def _merged(ours: Iterator[Any], theirs: Iterator[Any]) -> Iterator[Any]:
    """Both in order of time, so that the muxer does not have to buffer either."""

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
