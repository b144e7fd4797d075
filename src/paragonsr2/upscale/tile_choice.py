"""Choosing the side of a tile by the memory and the limits of an engine."""

from __future__ import annotations

from typing import Literal

from paragonsr2.errors import TileError
from paragonsr2.upscale.backends import Backend, BoundedBackend
from paragonsr2.upscale.tiling import MIN_TILE, auto_tile

TileOption = int | Literal["auto", "off"]

#: Most memory that is planned for one tile's pass through the network, in bytes.
TILE_BUDGET = 1 << 30


def require_tile(tile: object) -> None:
    """Check a tile that a user gave.

    Raises:
        TileError: it is neither ``auto`` nor ``off`` nor a number of at least :data:`MIN_TILE`.
    """
    if tile in ("auto", "off"):
        return
    if not isinstance(tile, int):
        raise TileError(f"'{tile}' is not a tile; give auto, off or a number from {MIN_TILE}")
    if tile < MIN_TILE:
        raise TileError(f"a tile of {tile} is too small; give {MIN_TILE} or more")


def automatic_tile(backend: Backend) -> int:
    """The side of a tile in input pixels that fits the engine.

    Raises:
        TileError: the engine takes no tile with its margins.
    """
    # Half-written results and other programs need memory too.
    budget = min(TILE_BUDGET, backend.free_memory() // 4)
    tile = auto_tile(budget, backend.bytes_per_pixel, backend.halo, backend.multiple_of)
    return min(tile, _largest_tile(backend)) if isinstance(backend, BoundedBackend) else tile


def _largest_tile(backend: BoundedBackend) -> int:
    """The largest tile that the backend takes together with what must be read around it."""
    # Reading may start up to multiple_of - 1 pixels before the halo.
    side = backend.max_side - 2 * backend.halo - backend.multiple_of + 1
    side -= side % max(backend.multiple_of, MIN_TILE)
    if side < MIN_TILE:
        raise TileError(
            f"{backend.name} takes {backend.max_side} pixels a side, which leaves no room for a "
            f"tile inside its margins; build the engine with a larger --max"
        )
    return side
