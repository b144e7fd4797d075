"""The generator's loss: the configured terms, each with its weight over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paragonsr2.errors import TrainingError
from paragonsr2.training.loss_config import LossConfig, LossTerm
from paragonsr2.training.loss_terms import (
    ArtefactLoss,
    BlockLoss,
    FrequencyLoss,
    GradientLoss,
    GridLoss,
    MsSsimLoss,
    PixelLoss,
)
from paragonsr2.training.perceptual import METRIC_WEIGHTS, EfficientNetLoss, PyiqaLoss

#: Terms that compare two pictures, by their key in ``[loss]``.
PAIR_TERMS: dict[str, Callable[[Any], nn.Module]] = {
    "pixel": PixelLoss,
    "finish": PixelLoss,
    "ms_ssim": lambda _: MsSsimLoss(),
    "frequency": lambda _: FrequencyLoss(),
    "gradient": lambda _: GradientLoss(),
    "grid": GridLoss,
    "blocks": BlockLoss,
}


@dataclass(frozen=True)
class LossReport:
    """The loss of one step.

    Attributes:
        total: weighted sum, a scalar with its graph.
        terms: each term by name, unweighted and detached; terms of weight 0 are left out.
    """

    total: Tensor
    terms: dict[str, Tensor]


class GeneratorLosses(nn.Module):
    """The weighted sum of the configured terms.

    ``features`` and ``adversarial`` need the discriminator: the training loop computes them, and
    only their :meth:`weight_at` is known here.

    Args:
        config: the section ``[loss]``: terms, weights and schedules.
        device: where to compute.
        log: receives which pretrained weights are used or downloaded.

    Raises:
        MissingExtraError: a term needs a network that is not installed.
        TrainingError: its weights are missing and may not, or cannot, be downloaded.
    """

    def __init__(
        self,
        config: LossConfig,
        device: torch.device | str = "cpu",
        log: Callable[[str], None] = print,
    ) -> None:
        super().__init__()
        self.config = config
        self.pairs = nn.ModuleDict()
        for name, build in PAIR_TERMS.items():
            if (term := config.term(name)) is not None:
                self.pairs[name] = build(term).to(device)
        for name in METRIC_WEIGHTS:
            if config.term(name) is not None:
                self.pairs[name] = PyiqaLoss(name, device, config.allow_download, log)
        if config.efficientnet is not None:
            self.pairs["efficientnet"] = EfficientNetLoss(device)
        self.artefact = None if config.artefact is None else ArtefactLoss()

    @property
    def needs_ema(self) -> bool:
        """Whether :meth:`forward` needs the averaged generator's output at some step."""
        return self.artefact is not None

    def weight_at(self, term: str, step: int) -> float:
        """Weight of ``term``, a key of ``[loss]``, at ``step`` (from 0); 0 if it is off."""
        config = self.config.term(term)
        return 0.0 if config is None else weight_at(config, step)

    def forward(
        self, step: int, sr: Tensor, hr: Tensor, *, sr_ema: Tensor | None = None
    ) -> LossReport:
        """Compare the generator's output with the original.

        Args:
            step: of the run, from 0; terms of weight 0 are not computed.
            sr: output ``(B, 3, H, W)``, nominally 0..1.
            hr: original, the same shape.
            sr_ema: the averaged generator's output; needed where the weight of ``artefact`` is
                not 0.

        Raises:
            TrainingError: ``sr_ema`` is needed but missing.
        """
        total = torch.zeros((), device=sr.device)
        values: dict[str, Tensor] = {}
        for name, term in self.pairs.items():
            if (weight := self.weight_at(name, step)) > 0.0:
                value = term(sr, hr)
                total, values[name] = total + weight * value, value.detach()
        if self.artefact is not None and (weight := self.weight_at("artefact", step)) > 0.0:
            if sr_ema is None:
                raise TrainingError("loss.artefact needs the averaged generator's output")
            value = self.artefact(sr, hr, sr_ema)
            total, values["artefact"] = total + weight * value, value.detach()
        return LossReport(total, values)


def weight_at(term: LossTerm, step: int) -> float:
    """Weight at ``step``: 0 before ``start``, rising over ``ramp`` steps, 0 from ``end`` on."""
    since = step - term.start
    if since < 0 or (term.end is not None and step >= term.end):
        return 0.0
    return term.weight if since >= term.ramp else term.weight * since / term.ramp
