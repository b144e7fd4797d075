"""Regions of the blind degradation, computed once and cached.

The chain needs a wide margin around what it degrades. For a region of some 200 pixels the margin
costs little; for each small crop anew it costs more than a training step on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import TrainingError
from paragonsr2.training.data import Picture, Place, generator
from paragonsr2.training.degradations import BlindDegradation
from paragonsr2.training.region_cache import RegionCache

#: Side of a region where the picture is large enough, in low-resolution pixels.
SIDE = 224

#: Part of the name of cached regions; raise it when a change makes regions come out different.
REGION_VERSION = 1


@dataclass(frozen=True)
class BlindPlan:
    """What to cut, in low-resolution pixels.

    Attributes:
        picture: index of the picture.
        y, x, height, width: window in it; a square.
    """

    picture: int
    y: int
    x: int
    height: int
    width: int


class BlindCache(RegionCache):
    """Regions as :class:`BlindDegradation` leaves them.

    Args:
        folder: the cache.
        pictures: to cut from; those with a given LR, or too small, are left out.
        blind: the degradation.
        patch: side of the crops that regions must hold, in low-resolution pixels.
        seed: of the run.

    Raises:
        TrainingError: no picture is large enough.
    """

    def __init__(
        self,
        folder: Path,
        pictures: Sequence[Picture],
        blind: BlindDegradation,
        patch: int,
        seed: int,
    ) -> None:
        self.blind = blind
        least = patch + 2 * blind.margin
        usable = [p for p in pictures if not p.given and min(p.size) >= least]
        if not usable:
            raise TrainingError(
                f"no training image without given low resolution has {least * blind.scale} pixels "
                "on both sides: too small for regions; set degradation.cached_regions = 0"
            )
        made_from = (REGION_VERSION, SIDE, blind.settings.model_dump_json())
        super().__init__(folder / "blind", usable, made_from, blind.scale, seed)

    def plan(self, index: int) -> BlindPlan:
        """A window that keeps the margin from the picture's borders."""
        rng = generator(self.seed, 5, index, 0)
        which = int(rng.choice(len(self.pictures), p=self.chances))
        size, margin = self.pictures[which].size, self.blind.margin
        side = min(SIDE, min(size) - 2 * margin)
        y, x = (
            margin + int(rng.integers(length - side - 2 * margin, endpoint=True)) for length in size
        )
        return BlindPlan(which, y, x, side, side)

    def make(self, index: int) -> Pixels8:
        """Degrade the window of a plan; see :class:`BlindDegradation`."""
        plan = self.plan(index)
        place = Place(self.pictures[plan.picture], plan.y, plan.x, plan.height)
        rngs = [generator(self.seed, 6, index, 0)]
        ((lr, _),) = self.blind([place], rngs, generator(self.seed, 7, index, 0))
        return lr
