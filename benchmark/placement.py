"""Where a network stands in quality against latency, and which networks beat it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paragonsr2.measure.latency import markdown
from paragonsr2.measure.quality import decibel


@dataclass(frozen=True)
class Placed:
    """A network in the plane of quality and latency.

    Attributes:
        name: of the network.
        median: seconds per call.
        set5: PSNR-Y on Set5 in dB; None if unknown.
        set14: PSNR-Y on Set14 in dB; None if unknown.
        ours: whether it belongs to this project.
    """

    name: str
    median: float
    set5: float | None
    set14: float | None
    ours: bool = False


def calls_within(seconds: float, budget: float, most: int) -> int:
    """Number of calls of ``seconds`` each that fit into ``budget`` seconds, in 2..``most``."""
    return max(2, min(most, int(budget / max(seconds, 1e-9))))


def dominating(ours: Placed, peers: Sequence[Placed]) -> list[Placed]:
    """The peers that are at least as fast as ``ours`` and better on Set14.

    The comparison uses two decimals, the precision of published numbers. A network without a
    Set14 figure neither dominates nor is dominated.
    """
    mine = ours.set14
    if mine is None:
        return []
    return [
        peer
        for peer in peers
        if peer.set14 is not None and peer.median <= ours.median and peer.set14 > round(mine, 2)
    ]


def frontier(placed: Sequence[Placed]) -> list[Placed]:
    """The networks with a Set14 figure that no network as fast equals, fastest first."""
    known = [(one.median, -one.set14, one) for one in placed if one.set14 is not None]
    best: list[Placed] = []
    least = math.inf
    for _, lost, one in sorted(known, key=lambda entry: entry[:2]):
        if lost < least:
            best.append(one)
            least = lost
    return best


def placed_table(placed: Sequence[Placed], calls: Mapping[str, int]) -> str:
    """Format networks as a Markdown table, fastest first, ours in bold.

    Args:
        placed: the networks.
        calls: number of timed calls by name.
    """
    head = ["network", "median, ms", "timed calls", "Set5, dB", "Set14, dB"]
    lines = [
        [
            f"**{one.name}**" if one.ours else one.name,
            f"{one.median * 1e3:.0f}" if one.median >= 0.1 else f"{one.median * 1e3:.1f}",
            str(calls[one.name]),
            *("unknown" if value is None else decibel(value) for value in (one.set5, one.set14)),
        ]
        for one in sorted(placed, key=lambda one: one.median)
    ]
    return markdown([head, *lines])
