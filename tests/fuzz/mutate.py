"""Ways to spoil a file, from a random generator that is handed in."""

from __future__ import annotations

import random
import re
import zlib

#: Values that sizes and counts go wrong at.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

#: What chunks, boxes and segments begin with, in all the formats.
_MARKS = re.compile(
    rb"IHDR|IDAT|PLTE|tRNS|iCCP|eXIf|iTXt|acTL|fcTL|fdAT|IEND|VP8[ LX]|ANIM|ANMF|ALPH|EXIF|XMP "
    rb"|ICCP|RIFF|ftyp|meta|iloc|iinf|ipma|ispe|pixi|av1C|mdat|moov|trak|stsz|\xff[\xc0-\xfe]"
    rb"|GIF8|!\xf9|!\xff|II\*\0|Exif"
)


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4, 32))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _header(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(min(64, len(data)))] = rng.randrange(256)


def _size(data: bytearray, rng: random.Random) -> None:
    """Put an edge value into two or four bytes, at a mark or anywhere."""
    width = rng.choice((2, 4))
    value = rng.choice(_EDGES) & (256**width - 1)
    marks = [match.start() for match in _MARKS.finditer(data)]
    at = rng.choice(marks) + rng.randint(-4, 16) if marks and rng.random() < 0.7 else 0
    at = at or rng.randrange(len(data))
    at = min(max(at, 0), max(len(data) - width, 0))
    data[at : at + width] = value.to_bytes(width, rng.choice(("big", "little")))


def _chunks(data: bytearray, rng: random.Random) -> None:
    """Swap, repeat or drop what lies between two marks."""
    marks = [match.start() for match in _MARKS.finditer(data)]
    if len(marks) < 3:
        _move(data, rng)
        return
    a, b, c = sorted(rng.sample(marks, 3))
    first, second = data[a:b], data[b:c]
    data[a:c] = rng.choice((second + first, first + first, second, first + second + second))


def _move(data: bytearray, rng: random.Random) -> None:
    length = rng.randrange(1, max(2, len(data) // 4))
    begin, to = rng.randrange(len(data)), rng.randrange(len(data))
    piece = data[begin : begin + length]
    data[to:to] = piece


def _fill(data: bytearray, rng: random.Random) -> None:
    begin = rng.randrange(len(data))
    length = rng.randrange(1, 64)
    data[begin : begin + length] = bytes([rng.choice((0, 255, rng.randrange(256)))]) * length


MUTATIONS = (_flip, _truncate, _header, _size, _size, _chunks, _move, _fill)


def _mend_checksums(data: bytearray) -> None:
    """Give each chunk of a PNG a right checksum, so that what is inside it is looked at."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


def mutate(content: bytes, rng: random.Random) -> bytes:
    """``content`` with one to three things wrong, never empty."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(MUTATIONS)(data, rng)
        if not data:
            data = bytearray(b"\0")
    if content.startswith(b"\x89PNG") and rng.random() < 0.7:
        _mend_checksums(data)
    return bytes(data)
