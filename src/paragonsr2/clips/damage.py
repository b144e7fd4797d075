"""What is wrong with a clip that plays all the same: what decoding loses, and where a file breaks.

FFmpeg skips what it cannot read, as players do. Its decoders and demuxers say what they skip, but
not that a file ends early, or that a stretch between two whole packets is gone. The chains of
elements that Matroska, AVI and MP4 files are made of show that, and are followed here.

Source: RFC 9559 (Matroska) and RFC 8794 (EBML); Microsoft, "AVI RIFF File Reference";
ISO/IEC 14496-12 (boxes).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass
class Damage:
    """Counted while a clip is decoded; complete when decoding is.

    Attributes:
        expected: frames that the container claims; 0 if it does not say.
        decoded: frames that came out.
        refused: packets that the decoder could make nothing of.
        flawed: frames that the decoder mended or guessed.
        lost: packets that arrived in part, or with a gap before them.
        cut: where the file breaks; empty if it does not.
    """

    expected: int = 0
    decoded: int = 0
    refused: int = 0
    flawed: int = 0
    lost: int = 0
    cut: str = ""

    def notes(self) -> tuple[str, ...]:
        """One sentence about all of it; nothing if the clip is whole."""
        missing = max(self.expected - self.decoded, 0)
        counts = (
            (missing, "frames are missing"),
            (self.refused, "packets do not decode"),
            (self.flawed, "frames are flawed"),
            (self.lost, "packets are lost or incomplete"),
        )
        told = [f"{count} {what}" for count, what in counts if count]
        if not told and not self.cut:
            return ()
        of_all = f" of {self.expected} expected" if self.expected else ""
        what = ", ".join(told + [self.cut] * bool(self.cut))
        return (f"the clip is damaged ({what}); {self.decoded} frames{of_all} are written",)


def broken_chain(path: Path) -> str:
    """Where the chain of elements of a file breaks; empty if it does not, or has none.

    Args:
        path: a video file of any kind.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(12)
        size = os.fstat(file.fileno()).st_size
        for signature, follow in _CHAINS.items():
            if re.match(signature, head, re.DOTALL):
                broken = follow(file, 0, size)
                return "" if broken is None else _told(broken, size)
    return ""


def _told(place: int, size: int) -> str:
    if place >= size:
        return "the file is cut short"
    return f"the file is damaged at byte {place} of {size}"


# Each of these follows a chain from ``start`` to ``end`` and returns where it breaks: at ``end`` or
# behind it if the last element is cut short.
_Follow = Callable[[BinaryIO, int, int], int | None]


def _follow_boxes(file: BinaryIO, start: int, end: int) -> int | None:
    """The boxes of an MP4 or QuickTime file, at the top level."""
    place = start
    while place < end:
        file.seek(place)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 0:  # to the end of the file; also zeros that pad it
            return None
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if len(head) < 8 or place + size > end:
            return end
        if size < 8 or not re.fullmatch(rb"[ -~\xa9]{4}", head[4:8]):
            return place
        place += size
    return None


_LISTS = {b"RIFF": b"AVI |AVIX", b"LIST": b"movi|rec "}


def _follow_chunks(file: BinaryIO, start: int, end: int) -> int | None:
    """The chunks of an AVI file, down to those of the streams."""
    place = start
    while place + 8 <= end:
        file.seek(place)
        head = file.read(12)
        size = int.from_bytes(head[4:8], "little")
        if not re.fullmatch(rb"[ -~]{4}", head[:4]):
            return place
        if place + 8 + size > end:
            return end if start == 0 else place
        if head[:4] in _LISTS and re.fullmatch(_LISTS[head[:4]], head[8:12]):
            broken = _follow_chunks(file, place + 12, place + 8 + size)
            if broken is not None:
                return broken
        place += 8 + size + size % 2
    return None


_SEGMENT, _CLUSTER, _BLOCK_GROUP, _CRC = 0x18538067, 0x1F43B675, 0xA0, 0xBF
_IN_FILE = frozenset({0x1A45DFA3, _SEGMENT, 0xEC})
_IN_SEGMENT = frozenset(
    {
        0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1043A770,
        0x1254C367, 0xEC, _CRC,
    }
)  # fmt: skip
_IN_CLUSTER = frozenset({0xE7, 0xA3, _BLOCK_GROUP, 0xAB, 0xA7, 0x5854, 0xAF, 0xEC, _CRC})
_PARENTS = {_SEGMENT: _IN_SEGMENT, _CLUSTER: _IN_CLUSTER}


def _follow_elements(file: BinaryIO, start: int, end: int) -> int | None:
    """The elements of a Matroska or WebM file, down to the blocks; checksums where there are."""
    return _follow_ebml(file, start, end, _IN_FILE)[0]


def _follow_ebml(
    file: BinaryIO, start: int, end: int, known: frozenset[int]
) -> tuple[int | None, int]:
    """Where the chain breaks, and where it ended."""
    place = start
    while place < end:
        file.seek(place)
        head = file.read(12)
        length = 9 - head[0].bit_length()
        identity = int.from_bytes(head[:length], "big")
        if identity not in known:
            # A parent of unknown size, as in a live recording, ends where its next one begins.
            return (None if identity in _IN_SEGMENT and known is _IN_CLUSTER else place), place
        body = head[length : length + 8]
        width = 9 - body[0].bit_length() if body else 9
        if width > min(len(body), 8):
            return end, end
        size = int.from_bytes(body[:width], "big") & ((1 << 7 * width) - 1)
        place += length + width
        unknown = size == (1 << 7 * width) - 1
        stop = end if unknown else place + size
        if stop > end:
            return end if known is not _IN_CLUSTER else place, end
        if identity in _PARENTS:
            if not unknown and not _matches_checksum(file, place, stop):
                return place, stop
            broken, ended = _follow_ebml(file, place, stop, _PARENTS[identity])
            if broken is not None:
                return broken, stop
            stop = ended if unknown else stop
        place = stop
    return None, place


def _matches_checksum(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether the elements have the checksum that precedes them, if one does."""
    file.seek(start)
    head = file.read(6)
    if head[:2] != bytes([_CRC, 0x84]):
        return True
    checksum, left = 0, stop - start - 6
    while left > 0 and (piece := file.read(min(left, 1 << 20))):
        checksum = zlib.crc32(piece, checksum)
        left -= len(piece)
    return checksum == int.from_bytes(head[2:], "little")


_CHAINS: dict[bytes, _Follow] = {
    rb"\x1aE\xdf\xa3": _follow_elements,
    rb"RIFF....AVI": _follow_chunks,
    rb"....(ftyp|moov|mdat|free|wide|skip)": _follow_boxes,
}
