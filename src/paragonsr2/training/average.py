"""The moving average of the weights, which is validated and released."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from paragonsr2.network.generator import ParagonSR2


class Ema:
    """Exponential moving average of a network's parameters."""

    def __init__(self, network: ParagonSR2, decay: float) -> None:
        self.decay = decay
        self.values = [p.detach().clone() for p in network.parameters()]

    @torch.no_grad()
    def update(self, network: ParagonSR2, step: int) -> None:
        """Move towards ``network``; early steps weigh more, so that the start fades fast."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for average, live in zip(self.values, network.parameters(), strict=True):
            average.lerp_(live, 1.0 - decay)

    @contextmanager
    def applied(self, network: ParagonSR2) -> Generator[ParagonSR2]:
        """Lend ``network`` the averaged parameters, in evaluation mode, inside a ``with`` block."""
        with torch.no_grad():
            live = [p.detach().clone() for p in network.parameters()]
            for parameter, value in zip(network.parameters(), self.values, strict=True):
                parameter.copy_(value)
            network.eval()
            try:
                yield network
            finally:
                network.train()
                for parameter, value in zip(network.parameters(), live, strict=True):
                    parameter.copy_(value)
