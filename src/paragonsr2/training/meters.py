"""Means of the losses, speed, and the progress line."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]


class LossMeans:
    """Means of each loss term since the last report.

    A term counts only in the steps that computed it: one that starts late is averaged over the
    steps since then.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self._last: dict[str, float] = {}

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Count the scalars of one step; they stay on their device."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self, reduce: Reduce) -> dict[str, float]:
        """The means, and start again; ``reduce`` averages a tensor over all processes."""
        means = {
            name: float(reduce(value) / self.counts[name]) for name, value in self.sums.items()
        }
        self.sums, self.counts, self._last = {}, {}, means
        return means

    def peek(self) -> dict[str, float]:
        """The means so far of this process alone; right after a report, those of the report."""
        means = {name: float(value / self.counts[name]) for name, value in self.sums.items()}
        return means or self._last

    def state_dict(self) -> dict[str, Any]:
        """``sums`` and ``counts``, for the state on disk."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any], since: int) -> None:
        """Continue from a state.

        Args:
            state: with ``sums``, and ``counts`` unless an older version wrote it.
            since: steps since the last report, which is the count where none is stored.
        """
        self.sums = cast(dict[str, Tensor], state["sums"])
        stored = cast(Mapping[str, int], state.get("counts", {}))
        self.counts = {name: stored.get(name, since) for name in self.sums}


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: steps done.
        steps: steps of the whole run.
        losses: means of the loss and its terms.
        rate: steps per second; 0 while unknown.
        seconds_left: until the last step; None while unknown.
        validation: last validation in words, or nothing.
        doing: what the run is doing now, other than training.
    """

    step: int
    steps: int
    losses: Mapping[str, float] = field(default_factory=dict[str, float])
    rate: float = 0.0
    seconds_left: float | None = None
    validation: str = ""
    doing: str = ""

    def losses_text(self) -> str:
        """The loss, and its terms in brackets."""
        if not self.losses:
            return ""
        loss, *terms = (f"{name} {value:.5f}" for name, value in self.losses.items())
        return f"{loss} ({', '.join(terms)})" if terms else loss

    def line(self) -> str:
        """The line of a log file; tools/training_queue.py reads how it begins."""
        left = f"  ETA {self.seconds_left / 60:.0f} min" if self.seconds_left is not None else ""
        return f"step {self.step}/{self.steps}  {self.losses_text()}  {self.rate:.1f} steps/s{left}"


class Pace:
    """Steps per second, and the time that is left.

    Args:
        step: where the run starts or resumes.
        steps: of the whole run.
        clock: seconds.
    """

    def __init__(self, step: int, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.first, self.steps, self._clock = step, steps, clock
        self._began = clock()
        self._mark, self._marked = step, self._began

    def rate(self, step: int) -> float:
        """Steps per second since the last :meth:`restart`."""
        elapsed = self._clock() - self._marked
        return (step - self._mark) / elapsed if elapsed > 0.0 else 0.0

    def restart(self, step: int) -> None:
        """Measure the rate from here on, after a report or something other than training."""
        self._mark, self._marked = step, self._clock()

    def seconds_left(self, step: int) -> float | None:
        """Until the last step, at the mean pace so far; what else it does is included."""
        done = step - self.first
        return (self.steps - step) * (self._clock() - self._began) / done if done else None


class Every:
    """Says when so many seconds have passed.

    Args:
        seconds: between two times that it is due; at the first it is.
        clock: seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause, self._clock = seconds, clock
        self._last = -math.inf

    def due(self) -> bool:
        """Whether it is time; if so, the next pause begins."""
        now = self._clock()
        if now - self._last < self._pause:
            return False
        self._last = now
        return True
