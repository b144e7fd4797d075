"""Damage that image decoders pass over: chains that break, and checksums nobody compares.

libvips decodes what it finds of a GIF or a WebP animation, libtiff stops to inflate when a strip is
full, before the checksum at its end, and libjpeg does not look for the end of a JPEG.

Source: ITU-T T.81, annex B; CompuServe, "Graphics Interchange Format, Version 89a"; Google, "WebP
Container Specification"; Adobe, "TIFF, Revision 6.0" and "TIFF Technical Notes"; RFC 1950.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

#: Bytes of a file that is looked at; a larger one is decoded on trust.
_LARGEST = 1 << 28


def broken_image(path: Path, most: int) -> str:
    """What is broken in an image file although it decodes; empty if nothing is known to be.

    Args:
        path: a file of any format.
        most: bytes of its decoded pixels; what inflates to much more is no business of this check.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(12)
        for signature, check in _CHECKS.items():
            if re.match(signature, head, re.DOTALL) and path.stat().st_size <= _LARGEST:
                file.seek(0)
                content = file.read()
                try:
                    return check(content, most)
                except (IndexError, struct.error):
                    return "the file is cut short"
    return ""


# What ends a scan of a JPEG: neither a stuffed byte nor a restart.
_MARKER = re.compile(rb"\xff+[^\xff\x00\xd0-\xd7]")


def _check_jpeg(content: bytes, _most: int) -> str:
    place = 2
    while True:
        found = _MARKER.match(content, place)
        if found is None or content[found.end() - 1] < 0xC0:
            return f"there is no marker at byte {place}"
        place = found.end()
        if content[place - 1] == 0xD9:
            return ""
        scan = content[place - 1] == 0xDA
        place += struct.unpack_from(">H", content, place)[0]
        if scan:
            found = _MARKER.search(content, place)
            if found is None:
                return "the file is cut short"
            place = found.start()


def _check_gif(content: bytes, _most: int) -> str:
    place = 13 + _table_bytes(content[10])
    while True:
        kind = content[place]
        if kind == 0x3B:
            return ""
        if kind == 0x21:
            place = _skip_blocks(content, place + 2)[1]
        elif kind == 0x2C:
            width, height, packed = struct.unpack_from("<HHB", content, place + 5)
            place += 10 + _table_bytes(packed)
            blocks, after = _skip_blocks(content, place + 1)
            if _lzw_pixels(b"".join(blocks), content[place], width * height) < width * height:
                return "the pixels of a frame end early"
            place = after
        else:
            return f"there is no block at byte {place}"


def _table_bytes(packed: int) -> int:
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _skip_blocks(content: bytes, place: int) -> tuple[list[bytes], int]:
    blocks: list[bytes] = []
    while size := content[place]:
        blocks.append(content[place + 1 : place + 1 + size])
        place += 1 + size
    return blocks, place + 1


def _lzw_pixels(data: bytes, bits: int, most: int) -> int:
    """How many pixels compressed data holds, at most ``most``; only lengths are computed."""
    clear = 1 << bits
    first = [1] * clear + [0, 0]
    lengths, width, before, count = first.copy(), bits + 1, 0, 0
    value = held = place = 0
    while count < most:
        while held < width:
            if place == len(data):
                return count
            value |= data[place] << held
            held, place = held + 8, place + 1
        code = value & ((1 << width) - 1)
        value, held = value >> width, held - width
        if code == clear:
            lengths, width, before = first.copy(), bits + 1, 0
            continue
        if code == clear + 1 or code > len(lengths):
            return count
        if before and len(lengths) < 4096:
            lengths.append(before + 1)
            if len(lengths) == 1 << width and width < 12:
                width += 1
        if code >= len(lengths):
            return count
        before = lengths[code]
        count += before
    return count


def _check_webp(content: bytes, _most: int) -> str:
    end = 8 + int.from_bytes(content[4:8], "little")
    place = 12
    while place < end:
        if not re.fullmatch(rb"[ -~]{4}", content[place : place + 4]):
            return f"there is no chunk at byte {place}"
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return "the file is cut short" if end > len(content) or place > end + 1 else ""


# Tags of a TIFF: compression, and where the strips or tiles are and how long.
_COMPRESSION, _PLACES, _SIZES = 259, (273, 324), (279, 325)
_DEFLATE = ((8,), (32946,))
_FORMATS = {3: "H", 4: "I", 16: "Q"}


def _check_tiff(content: bytes, most: int) -> str:
    left = 2 * most + (1 << 20)
    for tags in _directories(content):
        if tags.get(_COMPRESSION) not in _DEFLATE:
            continue
        places = next((tags[tag] for tag in _PLACES if tag in tags), ())
        sizes = next((tags[tag] for tag in _SIZES if tag in tags), ())
        for place, size in zip(places, sizes, strict=False):
            inflate, data = zlib.decompressobj(), content[place : place + size]
            try:
                while not inflate.eof and data and left > 0:
                    left -= len(inflate.decompress(data, 1 << 20))
                    data = inflate.unconsumed_tail
            except zlib.error:
                return "a strip of it is not what was written"
            if left > 0 and not inflate.eof:
                return "a strip of it is cut short"
    return ""


def _directories(content: bytes) -> Iterator[dict[int, tuple[int, ...]]]:
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    offset, count, step, inline = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    place = struct.unpack_from(order + offset, content, 8 if big else 4)[0]
    seen: set[int] = set()
    while place and place not in seen:
        seen.add(place)
        entries = struct.unpack_from(order + count, content, place)[0]
        place += struct.calcsize(count)
        tags: dict[int, tuple[int, ...]] = {}
        for entry in range(place, place + entries * step, step):
            tag, kind, number = struct.unpack_from(f"{order}HH{offset}", content, entry)
            if tag not in (_COMPRESSION, *_PLACES, *_SIZES) or kind not in _FORMATS:
                continue
            at = entry + step - inline
            if number * struct.calcsize(_FORMATS[kind]) > inline:
                at = struct.unpack_from(order + offset, content, at)[0]
            tags[tag] = struct.unpack_from(f"{order}{number}{_FORMATS[kind]}", content, at)
        yield tags
        place = struct.unpack_from(order + offset, content, place + entries * step)[0]


_CHECKS: dict[bytes, Callable[[bytes, int], str]] = {
    rb"\xff\xd8\xff": _check_jpeg,
    rb"GIF8[79]a": _check_gif,
    rb"RIFF....WEBP": _check_webp,
    rb"II[*+]\0|MM\0[*+]": _check_tiff,
}
