"""Opening video files through PyAV, shut off from other files and from the network."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.error import EOFError as EndError
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from paragonsr2.clips.damage import Damage
from paragonsr2.errors import ImageError

#: File suffixes that mark a video.
VIDEO_SUFFIXES = frozenset(
    {
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
        ".flv", ".wmv", ".asf", ".ogv", ".3gp", ".nut", ".mxf", ".dv", ".ivf", ".y4m",
    }
)  # fmt: skip


# Demuxers of playlists and "concat" scripts, which open other files, are not on the list.
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,nut,mxf,dv,ivf,yuv4mpegpipe",
}


def is_video(path: Path) -> bool:
    """Whether a file is a video: by its suffix or, if it has none, by its first bytes."""
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
    """Open a video file for reading. The demuxer can reach no other file and no network.

    Raises:
        ImageError: the file is not a video, or is too damaged to read.
    """
    try:
        with av.open(
            str(path),
            mode="r",
            container_options=_OPEN_OPTIONS,
            # Tags in an unknown encoding pass through byte for byte.
            metadata_errors="surrogateescape",
        ) as container:
            yield container
    except (FFmpegError, OSError) as error:
        raise ImageError(f"{path} is not a video, or is damaged: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """FFmpeg's description of an error as one short line, without the file's name."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:160]


def main_stream(container: InputContainer) -> VideoStream:
    """The stream to enlarge: the first video stream that is not a cover picture.

    Raises:
        ImageError: there is no such stream, or its codec cannot be decoded.
    """
    cover = Disposition.attached_pic
    found = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not found:
        raise ImageError(f"{container.name} has no video stream")
    if found[0].codec_context is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise ImageError(f"{container.name}: this FFmpeg cannot decode its video codec")
    return found[0]


def decoded(
    container: InputContainer, stream: VideoStream, damage: Damage | None = None
) -> Iterator[VideoFrame]:
    """Decode all frames in order of presentation; damaged ones are skipped, as players do.

    Args:
        container: the open file.
        stream: of it.
        damage: counts what is skipped.
    """
    damage = Damage() if damage is None else damage
    if not stream.codec_context.is_open:
        stream.thread_type = "AUTO"  # pyright: ignore[reportAttributeAccessIssue]
    if container.format.name.startswith("mov"):
        # Other containers hold an estimate, or the number of packets of another kind.
        damage.expected = stream.frames
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            # The file is cut short or unreadable from here on; flush the decoder.
            packet = None
            damage.cut = f"reading ends early ({reason(error)})"
        if packet is not None:
            damage.lost += packet.is_corrupt
            # An edit list tells players to leave these out.
            damage.expected -= packet.is_discard and damage.expected > 0
        try:
            for frame in stream.decode(packet):
                damage.decoded += 1
                damage.flawed += frame.is_corrupt
                yield frame
        except EndError:
            return
        except FFmpegError:
            if packet is None:
                return
            damage.refused += 1
            continue
        if packet is None:
            return
