"""Cost of a deployed network, counted from the operations that it runs."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from paragonsr2.network.generator import ParagonSR2

# A multiple of every attention window, large enough that the padding of shifted windows
# adds little.
_SIDE = 256


@dataclass(frozen=True)
class Cost:
    """Size and work of a deployed network.

    Attributes:
        parameters: number of stored weights.
        kmacs_per_pixel: thousand multiply-adds per input pixel in convolutions and matrix
            products, including the base path.
    """

    parameters: int
    kmacs_per_pixel: float


def network_cost(network: ParagonSR2) -> Cost:
    """Count the deployed form of ``network`` on a 256x256 input, without running it."""
    deployed = copy.deepcopy(network) if network.is_collapsed else network.collapse()
    deployed = deployed.to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        deployed(torch.empty(1, 3, _SIDE, _SIDE, device="meta"))
    parameters = sum(p.numel() for p in deployed.parameters())
    return Cost(parameters, counter.get_total_flops() / 2 / _SIDE**2 / 1000)
