"""Timing that can be believed: warm-up, rotating inputs, medians, candidates interleaved."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from paragonsr2.pixels.arrays import FloatNCHW


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        median: half of the calls were faster.
        p95: 95 % of the calls were faster.
        calls: how many were timed.
    """

    median: float
    p95: float
    calls: int


def time_side_by_side(
    candidates: Mapping[str, Callable[[FloatNCHW], object]],
    height: int,
    width: int,
    *,
    calls: int = 15,
    warmup: int = 2,
    seed: int = 0,
) -> dict[str, Timing]:
    """Time several networks on the same inputs in turn, so that they share good and bad moments.

    Args:
        candidates: by name, what to call with an input; it must return when the work is done.
        height: of the input.
        width: of the input.
        calls: timed calls of each.
        warmup: calls of each before that.
        seed: of the inputs, which are noise and never zero.

    Returns:
        By name, seconds.
    """
    rng = np.random.default_rng(seed)
    inputs = [rng.random((1, 3, height, width), dtype=np.float32) for _ in range(3)]
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + calls):
        for name, run in candidates.items():
            x = inputs[turn % len(inputs)]
            started = time.perf_counter()
            run(x)
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {
        name: Timing(float(np.median(times)), float(np.percentile(times, 95)), calls)
        for name, times in seconds.items()
    }
