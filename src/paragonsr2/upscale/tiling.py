"""Planning of tiles: pure arithmetic, no pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from paragonsr2.errors import TileError

MIN_TILE = 16
# Larger tiles gain little speed, and cost memory.
MAX_AUTO_TILE = 768


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in input pixels.

    Attributes:
        start, stop: what the tile contributes.
        read_start, read_stop: what it has to see for that.
    """

    start: int
    stop: int
    read_start: int
    read_stop: int


@dataclass(frozen=True)
class Tile:
    """A tile: the product of two spans."""

    y: Span
    x: Span


def spans(length: int, tile: int, halo: int, multiple_of: int) -> list[Span]:
    """Cut ``length`` pixels into spans of at most ``tile``, each seeing ``halo`` more.

    Reading starts on ``multiple_of``, so that windows and pooled branches fall as they do in
    the whole image.

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


def plan(height: int, width: int, tile: int, halo: int, multiple_of: int) -> Iterator[Tile]:
    """All tiles of an image, row by row."""
    columns = spans(width, tile, halo, multiple_of)
    for y in spans(height, tile, halo, multiple_of):
        for x in columns:
            yield Tile(y, x)


def auto_tile(budget: int, bytes_per_pixel: int, halo: int, multiple_of: int) -> int:
    """The largest square tile whose network pass fits ``budget`` bytes, halo included.

    Args:
        budget: bytes.
        bytes_per_pixel: working memory of the backend per input pixel.
        halo: of the network.
        multiple_of: of the network.
    """
    side = math.isqrt(max(0, budget // bytes_per_pixel)) - 2 * halo
    side = min(max(side, 4 * MIN_TILE), MAX_AUTO_TILE)
    return side - side % max(multiple_of, MIN_TILE)
