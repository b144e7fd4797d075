"""How strongly a JPEG was compressed, by its tables."""

from __future__ import annotations

from pathlib import Path

#: Most segments that are looked at; cameras write a few dozen.
_MOST_SEGMENTS = 1000

#: Sum of the luma table that the standard recommends, which is quality 50.
#: Source: ITU-T T.81, table K.1.
_SUM_AT_50 = 3688


def jpeg_quality(path: Path) -> int | None:
    """The quality on libjpeg's scale, 1..100, that is about as coarse as a JPEG's luma table.

    Args:
        path: of any file.

    Returns:
        None if the file is no JPEG, or has no such table.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) != b"\xff\xd8":
                return None
            for _ in range(_MOST_SEGMENTS):
                head = file.read(4)
                length = int.from_bytes(head[2:4], "big") - 2
                # 0xDA is the scan: no more tables come before the pixels.
                if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA or length < 0:
                    return None
                if head[1] == 0xDB and (table := _luma_table(file.read(length))):
                    return _nearest(sum(table))
                if head[1] != 0xDB:
                    file.seek(length, 1)
    except OSError:
        return None
    return None


def _luma_table(segment: bytes) -> list[int] | None:
    """The 64 divisors of table 0, if the segment has it."""
    at = 0
    while at < len(segment):
        wide, number = segment[at] >> 4 != 0, segment[at] & 15
        size = 128 if wide else 64
        table = segment[at + 1 : at + 1 + size]
        if number == 0 and len(table) == size:
            step = 2 if wide else 1
            return [int.from_bytes(table[i : i + step], "big") for i in range(0, size, step)]
        at += 1 + size
    return None


def _nearest(total: int) -> int:
    """The quality at which libjpeg's luma table has this sum."""
    share = 100 * total / _SUM_AT_50
    quality = 5000 / share if share > 100 else (200 - share) / 2
    return min(max(round(quality), 1), 100)
