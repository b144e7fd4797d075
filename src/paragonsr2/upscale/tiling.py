"""Where to cut an image into tiles: arithmetic only, no pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paragonsr2.errors import TileError

MIN_TILE = 16
# Larger tiles cost memory and gain little speed.
MAX_AUTO_TILE = 768


@dataclass(frozen=True)
class Span:
    """One axis of a tile, in input pixels.

    Attributes:
        start, stop: the part of the image that the tile contributes.
        read_start, read_stop: the part that it must see for that.
    """

    start: int
    stop: int
    read_start: int
    read_stop: int


def spans(length: int, tile: int, halo: int, multiple_of: int) -> list[Span]:
    """Cut ``length`` pixels into spans of at most ``tile``, each of which sees ``halo`` more.

    Reading starts at multiples of ``multiple_of``, so windows and pooled branches lie where they
    do in the whole image.

    Raises:
        TileError: ``tile`` is below 16.
    """
    if tile < MIN_TILE:
        raise TileError(f"a tile of {tile} is too small; give --tile {MIN_TILE} or more")
    step = tile - tile % multiple_of or multiple_of
    out: list[Span] = []
    for start in range(0, length, step):
        stop = min(start + step, length)
        read_start = max(start - halo, 0)
        read_start -= read_start % multiple_of
        out.append(Span(start, stop, read_start, min(stop + halo, length)))
    return out


def auto_tile(budget: int, bytes_per_pixel: int, halo: int, multiple_of: int) -> int:
    """The largest square tile whose pass through the network, halo included, fits ``budget``.

    Args:
        budget: bytes.
        bytes_per_pixel: working memory of the backend per input pixel.
        halo: input pixels that a tile must see on each side.
        multiple_of: tiles start at multiples of this.
    """
    side = math.isqrt(max(0, budget // bytes_per_pixel)) - 2 * halo
    side = min(max(side, 4 * MIN_TILE), MAX_AUTO_TILE)
    return side - side % max(multiple_of, MIN_TILE)
