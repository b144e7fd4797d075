"""Fidelity losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paragonsr2.measure.quality import LUMA_WEIGHTS
from paragonsr2.training.config import LossConfig


class PixelLoss(nn.Module):
    """Mean distance per pixel, a share of it taken on luma.

    Luma is what PSNR-Y and the eye weigh most; training photographs with half-resolution
    chroma say little about chroma detail.

    Args:
        config: kind of distance and share of luma.
    """

    weights: Tensor

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.kind = config.kind
        self.share = config.luma
        weights = torch.tensor(LUMA_WEIGHTS).view(1, 3, 1, 1)
        # Normalised so that a grey error weighs the same on luma as on RGB.
        self.register_buffer("weights", weights / weights.sum(), persistent=False)

    def _distance(self, error: Tensor) -> Tensor:
        if self.kind == "l1":
            return error.abs().mean()
        if self.kind == "charbonnier":
            return (error.square() + 1e-6).sqrt().mean()
        return error.square().mean()

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Distance of ``(B, 3, H, W)`` pictures in 0..1, a scalar."""
        error = sr.float() - hr
        if self.share == 0.0:
            return self._distance(error)
        on_luma = self._distance((error * self.weights).sum(dim=1))
        return (1.0 - self.share) * self._distance(error) + self.share * on_luma
