"""The share of this process among those that train together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object


def _alone(mine: list[Any]) -> list[Any]:
    return mine


@dataclass(frozen=True)
class Processes:
    """Which process this is, and how it meets the others.

    Attributes:
        rank: index of this process, from 0.
        world: number of processes.
        wait: returns once all processes have called it.
        gather: returns the concatenated lists of all processes, by rank; all must call it.
    """

    rank: int = 0
    world: int = 1
    wait: Callable[[], object] = lambda: None
    gather: Callable[[list[Any]], list[Any]] = _alone

    @classmethod
    def of(cls, accelerator: Accelerator) -> Processes:
        """Those that ``accelerator`` knows."""
        return cls(
            accelerator.process_index,
            accelerator.num_processes,
            accelerator.wait_for_everyone,
            gather_object if accelerator.num_processes > 1 else _alone,
        )
