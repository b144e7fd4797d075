"""A libvips image made of rows as they arrive from Python; it is never in memory as a whole."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import pyvips

from paragonsr2.arrays.pixels import Pixels

#: Bytes of pixels in one piece of the stream.
_PIECE = 1 << 22


class RowStream:
    """Feed rows from Python to a libvips saver; keep this object until the image is saved.

    libvips reads a stream of pixels only in a file format. The cheapest one that works in a pipe
    is an uncompressed PNG of single grey bytes, which are then put together to samples and pixels
    again.

    Args:
        width: of the whole image.
        height: of all pages together.
        channels: samples of a pixel.
        dtype: of a sample.

    Attributes:
        in_memory: all rows came at once, so that the image can be read again.
        error: the exception that the strips raised; libvips only sees the end of the stream.
    """

    def __init__(self, width: int, height: int, channels: int, dtype: np.dtype[Any]) -> None:
        self.width, self.height, self.channels = width, height, channels
        self.pixel_bytes = channels * dtype.itemsize
        self.error: BaseException | None = None
        self.in_memory = False
        self._source: Any = None

    def image(self, strips: Iterable[Pixels], vips_format: str) -> Any:
        """An image that can be read once, top to bottom, and takes the strips as it is read.

        Args:
            strips: ``(rows, W, C)``; all rows in order.
            vips_format: the libvips name of the dtype.
        """
        pending = iter(strips)
        first = next(pending)
        if first.shape[0] == self.height:
            self.in_memory = True
            pixels = np.ascontiguousarray(first)
            return pyvips.Image.new_from_memory(
                pixels.data, self.width, self.height, self.channels, vips_format
            )
        pieces = self._png(first, pending)
        rest = memoryview(b"")

        def read(length: int) -> bytes:
            nonlocal rest
            try:
                rest = rest or memoryview(next(pieces, b""))
            # An exception must not cross libvips.
            except BaseException as error:
                self.error = error
            taken, rest = rest[:length], rest[length:]
            return bytes(taken)

        # The image calls back into Python for as long as this object lives.
        self._source = source = pyvips.SourceCustom()
        source.on_read(read)
        flat = cast(Any, pyvips.Image).pngload_source(source, access="sequential", fail_on="error")
        image = flat.bandfold(factor=self.pixel_bytes)
        return image.copy(format=vips_format, bands=self.channels)

    def _png(self, first: Pixels, pending: Iterator[Pixels]) -> Iterator[bytes]:
        row_bytes = self.width * self.pixel_bytes
        yield b"\x89PNG\r\n\x1a\n"
        yield chunk(b"IHDR", struct.pack(">IIBBBBB", row_bytes, self.height, 8, 0, 0, 0, 0))
        deflate = zlib.compressobj(level=0)
        step = max(1, _PIECE // row_bytes)
        strip: Pixels | None = first
        while strip is not None:
            for top in range(0, strip.shape[0], step):
                part = np.ascontiguousarray(strip[top : top + step])
                # Each row of a PNG begins with the number of its filter; 0 is none.
                rows = np.zeros((part.shape[0], 1 + row_bytes), dtype=np.uint8)
                rows[:, 1:] = part.view(np.uint8).reshape(part.shape[0], row_bytes)
                packed = deflate.compress(rows.data)
                if packed:
                    yield chunk(b"IDAT", packed)
            strip = next(pending, None)
        yield chunk(b"IDAT", deflate.flush())
        yield chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    """Make a chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + checksum(kind, content)


def checksum(kind: bytes, content: bytes) -> bytes:
    """The four bytes at the end of a chunk."""
    return struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
