"""PNG files: photographs compressed quickly by ISA-L, flat pictures thoroughly by zlib.

libvips writes the chunks and filters the rows. For ISA-L it writes them without compression, and
they are compressed on their way into the file. ISA-L is many times as fast as zlib and compresses
photographs nearly as well, but what is flat takes up to three times the bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyvips

from paragonsr2.images.rowstream import chunk

isal_zlib: Any
try:
    from isal import isal_zlib
except ImportError:  # there are no wheels of it for some processors
    isal_zlib = None

#: The row filter for photographs: the files are smaller than without a filter.
_FILTER = "avg"
#: The other filters that are tried on flat pictures; none is best on all of them.
_OTHER_FILTERS = ("none", "up", "paeth", "all")
#: Level of ISA-L, 0..3; a higher one gains nothing here.
_LEVEL = 2
#: Level of zlib where ISA-L is not installed; the files are about as large.
_ZLIB_LEVEL = 2
#: Level of zlib for flat pictures.
_FLAT_LEVEL = 6

#: A picture of which a sample is compressed this many times is flat: drawn, not photographed. On
#: such pictures zlib is not much slower.
_FLAT = 4.0
#: One in so many rows is in the sample, but at least so many rows, in blocks of so many.
_SAMPLE, _SAMPLE_ROWS, _SAMPLE_BLOCK = 32, 64, 8

#: Bytes of compressed pixels in a chunk.
_CHUNK = 1 << 16
_SIGNATURE_BYTES = 8


def save_png(image: Any, file: BinaryIO, *, in_memory: bool = False) -> None:
    """Write a libvips image as a PNG with all its metadata.

    Args:
        image: 8 or 16 bits, 1 to 4 bands.
        file: open for writing.
        in_memory: the pixels of ``image`` can be read more than once, so that the filter and the
            compression can be chosen by a sample of them.

    Raises:
        pyvips.Error: the image cannot be made.
        OSError: ``file`` cannot be written.
    """
    way = _choose(image) if in_memory else _Way(_FILTER, flat=False)
    packer = None if isal_zlib is None or way.flat else _Packer(file)
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
    level = _FLAT_LEVEL if way.flat else _ZLIB_LEVEL if packer is None else 0
    try:
        image.write_to_target(target, ".png", compression=level, filter=way.filter)
    except pyvips.Error:
        if failure is not None:
            raise failure from None
        raise


@dataclass(frozen=True)
class _Way:
    """How the pixels are stored: the row filter, and whether they are flat enough for zlib."""

    filter: str
    flat: bool


def _choose(image: Any) -> _Way:
    """Try a sample of the rows."""
    blocks = max(_SAMPLE_ROWS, image.height // _SAMPLE) // _SAMPLE_BLOCK
    last = max(0, image.height - _SAMPLE_BLOCK)
    tops = sorted({last * number // (blocks - 1) for number in range(blocks)})
    rows = min(_SAMPLE_BLOCK, image.height)
    parts = [image.crop(0, top, image.width, rows) for top in tops]
    sample = cast(Any, pyvips.Image).arrayjoin(parts, across=1).copy_memory()
    size = len(sample.write_to_memory())

    def stored(name: str) -> int:
        return len(sample.pngsave_buffer(compression=1, filter=name, keep="none"))

    sizes = {_FILTER: stored(_FILTER)}
    if size < _FLAT * sizes[_FILTER]:
        return _Way(_FILTER, flat=False)
    sizes |= {name: stored(name) for name in _OTHER_FILTERS}
    return _Way(min(sizes, key=lambda name: sizes[name]), flat=True)


class _Packer:
    """Compress the pixels of a PNG anew, and leave the rest; it comes in pieces of any size."""

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
