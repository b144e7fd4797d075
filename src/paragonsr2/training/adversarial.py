"""The game between generator and discriminator: losses, penalties, and the opponent itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from paragonsr2.training.config import AdversarialConfig


def generator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """What the generator pays.

    Args:
        kind: ``nonsaturating``, ``hinge`` or ``relativistic``.
        real: logits of the originals, any shape.
        fake: logits of the generated pictures, pairwise of the same places.

    Returns:
        A scalar.
    Source: Goodfellow et al. 2014; Lim and Ye 2017; Huang et al., "The GAN is dead; long live
        the GAN!", 2024 (the relativistic pairing of R3GAN).
    """
    match kind:
        case "hinge":
            return -fake.mean()
        case "relativistic":
            return F.softplus(real - fake).mean()
        case _:
            return F.softplus(-fake).mean()


def discriminator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator pays; takes what :func:`generator_loss` does."""
    match kind:
        case "hinge":
            return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()
        case "relativistic":
            return F.softplus(fake - real).mean()
        case _:
            return F.softplus(-real).mean() + F.softplus(fake).mean()


def gradient_penalty(judge: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """Mean over pixels of the squared gradient of all logits by the picture.

    Zero-centred: R1 on originals, R2 on generated pictures. Per pixel, so that its size does
    not depend on the size of the crops.

    Source: Mescheder et al., "Which training methods for GANs do actually converge?", 2018.
    """
    pictures = pictures.detach().requires_grad_()
    # Only the plain form of attention has a second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        logits = judge(pictures)
        (gradient,) = torch.autograd.grad(logits.float().sum(), pictures, create_graph=True)
    return gradient.square().sum(dim=1).mean()


class Opponent:
    """A discriminator with its optimiser: it judges for the generator and learns from it.

    Args:
        network: the discriminator itself, whose weights are kept.
        model: the same, as it is called: wrapped for several processes, compiled, or plain.
        optimizer: of the discriminator.
        config: kind of game and penalties.
    """

    def __init__(
        self,
        network: nn.Module,
        model: Callable[[Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        config: AdversarialConfig,
    ) -> None:
        self.network, self.model, self.optimizer, self.config = network, model, optimizer, config

    def loss(self, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """The discriminator's loss on originals and generated pictures ``(B, 3, H, W)``."""
        fake = fake.detach()
        # One pass for both, so that batches of two kinds share the power iteration's estimate.
        logits_real, logits_fake = self.model(torch.cat([real, fake])).chunk(2)
        loss = discriminator_loss(self.config.kind, logits_real.float(), logits_fake.float())
        if step % self.config.penalty_every == 0:
            # Rarer penalties count for the steps they are left out of.
            often = 0.5 * self.config.penalty_every
            if self.config.r1:
                loss = loss + often * self.config.r1 * gradient_penalty(self.model, real)
            if self.config.r2:
                loss = loss + often * self.config.r2 * gradient_penalty(self.model, fake)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-identical continuation needs."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
