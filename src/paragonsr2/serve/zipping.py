"""Several files as one ZIP that is made while it is sent."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Generator, Sequence
from pathlib import Path, PurePath

_CHUNK = 1 << 18


def zip_pieces(files: Sequence[tuple[str, Path]]) -> Generator[bytes]:
    """The bytes of a ZIP, which holds the files as they are.

    Args:
        files: name in the ZIP, and path. Of equal names, the later ones get a number.

    Raises:
        OSError: a file was removed in the meantime; what was sent is not a whole ZIP.
    """
    sink, taken = _Sink(), set[str]()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, path in files:
            about = zipfile.ZipInfo.from_file(path, _unused(name, taken))
            with path.open("rb") as source, archive.open(about, "w") as entry:
                while chunk := source.read(_CHUNK):
                    entry.write(chunk)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken; a ZIP that cannot seek is written in one pass."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _unused(name: str, taken: set[str]) -> str:
    path, number, free = PurePath(name), 1, name
    while free.lower() in taken:  # some systems do not tell A from a
        number += 1
        free = f"{path.stem} ({number}){path.suffix}"
    taken.add(free.lower())
    return free
