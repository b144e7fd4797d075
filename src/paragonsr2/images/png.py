"""PNG files, compressed by ISA-L: sooner than by libvips' zlib, and nearly as small.

libvips chooses the chunks and filters the rows; what it writes without compression is packed on
its way into the file.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import pyvips

from paragonsr2.images.rowstream import chunk

isal_zlib: Any
try:
    from isal import isal_zlib
except ImportError:  # there are no wheels of it for some processors
    isal_zlib = None

#: Photos become smaller than with any other filter, or with none, which is libvips' choice.
_FILTER = "avg"
#: Of ISA-L, 0..3; more gains nothing here.
_LEVEL = 2
#: Of zlib, where there is no ISA-L; files come out about as large.
_ZLIB_LEVEL = 2
#: Bytes of packed pixels in a chunk.
_CHUNK = 1 << 16
_SIGNATURE_BYTES = 8


def save_png(image: Any, file: BinaryIO) -> None:
    """Write a libvips image as a PNG with all that it carries.

    Args:
        image: 8 or 16 bits, 1 to 4 bands.
        file: open for writing.

    Raises:
        pyvips.Error: the image cannot be made.
        OSError: ``file`` cannot be written.
    """
    packer = None if isal_zlib is None else _Packer(file)
    take = file.write if packer is None else packer.write
    failure: BaseException | None = None

    def write(piece: Any) -> int:
        nonlocal failure
        try:
            take(piece)
        # An exception must not cross libvips.
        except BaseException as error:
            failure = error
            return -1
        return len(piece)

    target = pyvips.TargetCustom()
    target.on_write(write)
    level = _ZLIB_LEVEL if packer is None else 0
    try:
        image.write_to_target(target, ".png", compression=level, filter=_FILTER)
    except pyvips.Error:
        if failure is not None:
            raise failure from None
        raise


class _Packer:
    """Pixels of a PNG packed anew, the rest as it is; the PNG comes in pieces of any size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting = bytearray()
        self._skip = _SIGNATURE_BYTES
        self._unpack, self._pack = isal_zlib.decompressobj(), isal_zlib.compressobj(_LEVEL)
        self._packed = bytearray()

    def write(self, piece: bytes) -> None:
        """Take the next piece."""
        self._waiting += piece
        if self._skip:
            if len(self._waiting) < self._skip:
                return
            self._file.write(bytes(self._waiting[: self._skip]))
            del self._waiting[: self._skip]
            self._skip = 0
        place = 0
        while len(self._waiting) >= place + 8:
            (size,) = struct.unpack_from(">I", self._waiting, place)
            end = place + size + 12
            if len(self._waiting) < end:
                break
            self._chunk(bytes(self._waiting[place:end]))
            place = end
        del self._waiting[:place]

    def _chunk(self, whole: bytes) -> None:
        kind, content = whole[4:8], memoryview(whole)[8:-4]
        if kind == b"IDAT":
            self._packed += self._pack.compress(self._unpack.decompress(content))
            if self._unpack.eof:
                self._packed += self._pack.flush()
            if self._packed and (self._unpack.eof or len(self._packed) >= _CHUNK):
                self._file.write(chunk(b"IDAT", bytes(self._packed)))
                self._packed.clear()
        else:
            self._file.write(whole)
