"""Passes grouped into stages: what one dispatch on a GPU computes.

A dense 3x3 convolution reads through the memory that a workgroup shares. If its input comes from a
cheap pass that nothing else reads (the second line of a Nano block, the fusion), that pass is
computed while shared memory is filled. It then needs no dispatch and no map of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paragonsr2.shaders.program import INPUT, Convolution, Floats, Pass, Program


@dataclass(frozen=True)
class Stage:
    """What one compute pass does.

    Attributes:
        main: the pass that it stores.
        before: a cheap pass computed into shared memory first, which ``main`` alone reads.
    """

    main: Pass
    before: Pass | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the stored maps that it reads."""
        if self.before is None:
            return self.main.sources
        others = [name for name in self.main.sources if name != self.before.name]
        return tuple(dict.fromkeys([*self.before.sources, *others]))


def fused(program: Program) -> list[Stage]:
    """Pair passes that are cheap to compute twice with the dense pass that reads them."""
    passes = {one.name: one for one in program.passes}
    readers: dict[str, list[str]] = {name: [] for name in passes}
    for one in program.passes:
        for name in one.sources:
            if name in readers:
                readers[name].append(one.name)
    stages: dict[str, Stage] = {}
    for one in program.passes:
        tiled = tiled_convolution(one)
        before = passes.get(tiled.source) if tiled is not None else None
        if before is not None and readers[before.name] == [one.name] and _is_cheap(before):
            del stages[before.name]
            stages[one.name] = Stage(one, before)
        else:
            stages[one.name] = Stage(one)
    return list(stages.values())


def _is_cheap(one: Pass) -> bool:
    """Whether a pass does little work for each pixel: depthwise or 1x1."""
    if INPUT in one.sources or one.added:
        return False
    return all(conv.groups > 1 or conv.weight.shape[2:] == (1, 1) for conv in one.convolutions)


def tiled_convolution(one: Pass) -> Convolution | None:
    """The convolution of a pass that reads through shared memory, if there is one."""
    for conv in one.convolutions:
        if conv.groups == 1 and conv.source != INPUT and max(conv.reach) == 1:
            return conv
    return None


def assign_slots(stages: list[Stage]) -> dict[str, int]:
    """Give each stored map a slot; maps that are no longer read pass theirs on.

    Returns:
        Number of the slot by name of the map.
    """
    last = {name: number for number, stage in enumerate(stages) for name in stage.sources}
    free: list[int] = []
    slots: dict[str, int] = {}
    for number, stage in enumerate(stages[:-1]):
        slots[stage.main.name] = free.pop() if free else len(set(slots.values()))
        free += [slots[n] for n, used in last.items() if used == number and n in slots]
    return slots


def texels_of(channels: int) -> int:
    """Number of groups of four that hold so many channels."""
    return -(-channels // 4)


def four_of(values: Floats, texel: int) -> Floats:
    """Four of ``values``, zeros behind the last."""
    part = values[4 * texel : 4 * texel + 4]
    return np.pad(part, (0, 4 - len(part)))
