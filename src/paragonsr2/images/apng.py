"""Animated PNG: reading and writing the chunks around the frames.

libvips reads only the first frame of an animated PNG, and Pillow reduces 16-bit colour to 8 bits.
Here libvips decodes and encodes each frame as a PNG of its own.

Source: W3C, "Portable Network Graphics (PNG) Specification (Third Edition)", 5.3, 11.3.6 and 12.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyvips

from paragonsr2.arrays.pixels import Pixels, full_scale
from paragonsr2.errors import ImageError
from paragonsr2.images.rowstream import checksum, chunk

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: Milliseconds that a frame is shown if nothing is said.
_DELAY = 100

# Chunks without which the pixels of a frame are not what they are.
_SHARED = (b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT")

# fcTL: sequence, width, height, left, top, delay as a fraction, dispose, blend.
_CONTROL = struct.Struct(">IIIIIHHBB")
_TO_NOTHING, _TO_PREVIOUS = 1, 2
_OVER = 1


@dataclass(slots=True)
class _Frame:
    """The place of a frame on the canvas, and of its compressed pixels in the file."""

    width: int
    height: int
    left: int
    top: int
    delay: int
    dispose: int
    blend: int
    data: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


def count_frames(path: Path) -> int:
    """Return how many frames a file claims to have; 1 if it is not an animated PNG."""
    with path.open("rb") as file:
        if file.read(8) != _SIGNATURE:
            return 1
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            size = int.from_bytes(head[:4], "big")
            if head[4:] == b"acTL" and size == 8:
                return max(1, int.from_bytes(file.read(4), "big"))
            file.seek(size + 4, 1)
    return 1


class Animation:
    """The frames of an animated PNG.

    Args:
        path: a file that has more than one frame according to :func:`count_frames`.

    Attributes:
        width, height: size of the canvas, in pixels.
        delays: duration of each frame, in milliseconds.
        loop: how many times it plays; 0 means forever.

    Raises:
        ImageError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.width = self.height = self.loop = 0
        self._kind = b""
        self._shared = b""
        self._frames: list[_Frame] = []
        with path.open("rb") as file:
            self._read(file)

    @property
    def delays(self) -> tuple[int, ...]:
        """Duration of each frame, in milliseconds."""
        return tuple(frame.delay for frame in self._frames)

    def frames(self) -> Iterator[Pixels]:
        """Yield the frames as shown: ``(H, W, 2 or 4)`` uint8 or uint16, with straight alpha.

        Raises:
            ImageError: a frame is damaged.
        """
        canvas: Any = None
        with self.path.open("rb") as file:
            for frame in self._frames:
                part = self._decode(file, frame)
                if canvas is None:
                    canvas = np.zeros((self.height, self.width, part.shape[2]), part.dtype)
                place = canvas[frame.top :, frame.left :][: frame.height, : frame.width]
                before = place.copy()
                place[:] = _over(part, before) if frame.blend == _OVER else part
                yield canvas.copy()
                if frame.dispose == _TO_NOTHING:
                    place[:] = 0
                elif frame.dispose == _TO_PREVIOUS:
                    place[:] = before

    def _damaged(self, why: str) -> ImageError:
        return ImageError(f"{self.path} is a damaged animated PNG: {why}")

    def _read(self, file: BinaryIO) -> None:
        claimed = sequence = 0
        for kind, place, size in self._chunks(file):
            if kind == b"IHDR":
                content = self._content(file, kind, place, size)
                self.width, self.height = struct.unpack_from(">II", content)
                self._kind = content[8:]
            elif kind == b"acTL":
                claimed, self.loop = struct.unpack(">II", self._content(file, kind, place, 8))
            elif kind in _SHARED and not self._frames:
                self._shared += chunk(kind, self._content(file, kind, place, size))
            elif kind == b"IDAT" and self._frames:
                self._frames[0].data.append((place, size))
            elif kind in (b"fcTL", b"fdAT"):
                if size < 4 or self._number(file, place) != sequence:
                    raise self._damaged("its frames are out of order")
                sequence += 1
                if kind == b"fcTL":
                    self._frames.append(self._control(file, place, size))
                elif not self._frames:
                    raise self._damaged("a frame has no size")
                else:
                    self._frames[-1].data.append((place, size))
        if len(self._frames) != claimed or not all(frame.data for frame in self._frames):
            raise self._damaged(f"it has not the {claimed} frames that it claims")

    def _chunks(self, file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
        """Yield kind, position of the content and size of each chunk."""
        place = len(_SIGNATURE)
        while True:
            file.seek(place)
            head = file.read(8)
            if len(head) < 8:
                raise self._damaged("it ends in the middle")
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"IEND":
                return
            yield kind, place + 8, size
            place += size + 12

    def _content(self, file: BinaryIO, kind: bytes, place: int, size: int) -> bytes:
        file.seek(place)
        content = file.read(size)
        if len(content) != size or file.read(4) != checksum(kind, content):
            raise self._damaged(f"its {kind.decode('latin-1')} is not what was written")
        return content

    def _number(self, file: BinaryIO, place: int) -> int:
        file.seek(place)
        return int.from_bytes(file.read(4), "big")

    def _control(self, file: BinaryIO, place: int, size: int) -> _Frame:
        if size != _CONTROL.size:
            raise self._damaged("a frame has no size")
        _, width, height, left, top, delay, part, dispose, blend = _CONTROL.unpack(
            self._content(file, b"fcTL", place, size)
        )
        if not (0 < width <= self.width - left and 0 < height <= self.height - top):
            raise self._damaged("a frame lies outside of the picture")
        shown = round(1000 * delay / (part or 100))
        return _Frame(width, height, left, top, shown, dispose, blend)

    def _decode(self, file: BinaryIO, frame: _Frame) -> Pixels:
        pieces = [
            _SIGNATURE,
            chunk(b"IHDR", struct.pack(">II", frame.width, frame.height) + self._kind),
            self._shared,
        ]
        for place, size in frame.data:
            file.seek(place - 4)
            kind = file.read(4)
            content = self._content(file, kind, place, size)
            pieces.append(chunk(b"IDAT", content[4:] if kind == b"fdAT" else content))
        pieces.append(chunk(b"IEND", b""))
        try:
            image = cast(Any, pyvips.Image).pngload_buffer(
                b"".join(pieces), access="sequential", fail_on="error"
            )
            pixels = np.asarray(image)
        except pyvips.Error as error:
            raise self._damaged("a frame cannot be decoded") from error
        pixels = pixels.reshape(frame.height, frame.width, -1)
        if pixels.shape[2] % 2 == 0:
            return pixels
        alpha = np.full_like(pixels[..., :1], full_scale(pixels))
        return np.concatenate([pixels, alpha], axis=2)


def write_animation(
    file: BinaryIO, pages: Iterable[bytes], count: int, delays: tuple[int, ...], loop: int
) -> None:
    """Join PNG files of the same size and kind into an animated PNG.

    Args:
        file: where to.
        pages: the files; what the first carries is kept.
        count: how many there are.
        delays: milliseconds of each; empty for a tenth of a second.
        loop: how often it is played, 0 for ever.
    """
    sequence = 0

    def numbered(kind: bytes, content: bytes) -> bytes:
        nonlocal sequence
        sequence += 1
        return chunk(kind, struct.pack(">I", sequence - 1) + content)

    end = b""
    for number, page in enumerate(pages):
        delay = delays[number] if delays else _DELAY
        # Two bytes hold no more than a minute in milliseconds, and eleven in hundredths.
        time = (delay, 1000) if delay < 1 << 16 else (min(delay // 10, 0xFFFF), 100)
        control = b""
        for kind, content in _chunks_of(page):
            if kind == b"IHDR":
                control = content[:8] + struct.pack(">IIHHBB", 0, 0, *time, 0, 0)
                if number == 0:
                    file.write(_SIGNATURE + chunk(kind, content))
                    file.write(chunk(b"acTL", struct.pack(">II", count, loop)))
            elif kind == b"IDAT":
                if control:
                    file.write(numbered(b"fcTL", control))
                    control = b""
                file.write(numbered(b"fdAT", content) if number else chunk(kind, content))
            elif kind == b"IEND":
                break
            elif number == 0 and control:
                file.write(chunk(kind, content))
            elif number == 0:
                end += chunk(kind, content)
    file.write(end + chunk(b"IEND", b""))


def _chunks_of(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(_SIGNATURE)
    while place < len(png):
        size = int.from_bytes(png[place : place + 4], "big")
        yield png[place + 4 : place + 8], png[place + 8 : place + 8 + size]
        place += size + 12


def _over(above: Pixels, below: Pixels) -> Pixels:
    """Composite ``above`` over ``below``; the last channel is straight alpha."""
    full = full_scale(above)
    a, b = above[..., -1:] / full, below[..., -1:] / full
    alpha = a + b * (1 - a)
    colour = above[..., :-1] * a + below[..., :-1] * b * (1 - a)
    mixed = np.concatenate([colour / np.maximum(alpha, 1e-9), alpha * full], axis=2)
    return np.rint(mixed).astype(above.dtype)
