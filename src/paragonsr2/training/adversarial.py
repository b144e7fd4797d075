"""Adversarial training: losses, the penalty on steepness, and the discriminator."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import parametrize

from paragonsr2.errors import OptionError
from paragonsr2.network.discriminator import MIN_SIDE, MUNet
from paragonsr2.training.config import DiscriminatorConfig
from paragonsr2.training.loss_config import AdversarialTerm
from paragonsr2.training.loss_terms import feature_matching
from paragonsr2.variants import Variant

#: Standard deviation of the noise that tells how steep the discriminator is; pictures are 0..1.
NOISE = 0.02


def generator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """The generator's adversarial loss.

    Args:
        kind: ``nonsaturating``, ``hinge`` or ``relativistic``.
        real: logits of the originals, any shape.
        fake: logits of the generated pictures, at the same positions.

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
    """The discriminator's loss; the arguments are those of :func:`generator_loss`."""
    match kind:
        case "hinge":
            return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()
        case "relativistic":
            return F.softplus(fake - real).mean()
        case _:
            return F.softplus(-real).mean() + F.softplus(fake).mean()


def steepness(said: Tensor, moved: Tensor) -> Tensor:
    """How far logits move with noise on the picture, squared and per unit of the noise's variance.

    To first order the sum of the squared derivatives of a logit with respect to the picture, which
    R1 limits on originals and R2 on generated pictures. It needs no second derivative, so it can
    be paid at every step. A penalty at every 16th step alone does not hold the discriminator: Adam
    evens its size out.

    Args:
        said: logits of pictures, ``(B, 1, H, W)``.
        moved: logits of the same pictures with Gaussian noise of deviation :data:`NOISE`.

    Returns:
        A scalar.
    Source: Mescheder et al., "Which training methods for GANs do actually converge?", 2018; by
        noise instead of derivatives: Lin et al., "Diffusion Adversarial Post-Training for One-Step
        Video Generation", 2025.
    """
    return (moved - said).square().mean() / NOISE**2


class Encounter(NamedTuple):
    """What the discriminator made of a batch.

    Attributes:
        won: the generator's adversarial loss, a detached scalar.
        matching: the feature matching loss, a detached scalar; None if it was not asked for.
        pull: gradient of the weighted sum of both with respect to the generated pictures,
            ``(B, 3, H, W)``; None if both weights are 0.
        loss: the discriminator's own, a detached scalar.
    """

    won: Tensor
    matching: Tensor | None
    pull: Tensor | None
    loss: Tensor


class Opponent:
    """The discriminator with its optimiser: judges the generator's output, and learns.

    It is not wrapped for several processes, because it takes several forward passes before one
    backward pass, which the wrapper does not allow. :meth:`update` averages the gradients.

    Args:
        network: the discriminator.
        optimizer: of its weights, prepared by ``accelerator``.
        accelerator: of the run.
        config: the term ``loss.adversarial``.
    """

    def __init__(
        self,
        network: MUNet,
        optimizer: AcceleratedOptimizer,
        accelerator: Accelerator,
        config: AdversarialTerm,
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self.accelerator, self.config = accelerator, config

    def meet(
        self, real: Tensor, fake: Tensor, step: int,
        *, game: float, features: float, share: float = 1.0,
    ) -> Encounter:  # fmt: skip
        """Judge a batch once, for both players; the discriminator's gradients grow by its own.

        Args:
            real: originals, ``(B, 3, H, W)``.
            fake: generated pictures of the same crops; no gradient goes back into them.
            step: of the run; the seed of the penalty's noise.
            game: weight of the adversarial loss.
            features: weight of the feature matching loss.
            share: of this batch in the discriminator's step.
        """
        fake = fake.detach().requires_grad_()
        # All passes share each estimated spectral norm.
        with parametrize.cached(), self.accelerator.autocast():
            theirs, ours = self.network.inspect(real), self.network.inspect(fake)
            on_real, on_fake = theirs.logits.float(), ours.logits.float()
            won = generator_loss(self.config.kind, on_real.detach(), on_fake)
            total, matching = game * won, None
            if features > 0.0:
                matching = feature_matching(theirs.features, ours.features)
                total = total + features * matching
            loss = discriminator_loss(self.config.kind, on_real, on_fake)
            loss = loss + self._penalty((real, fake), (on_real, on_fake), step)
        pull = None
        if game > 0.0 or features > 0.0:
            # In float16 a small gradient needs the loss scaler's factor on its way.
            factor = scaler.get_scale() if (scaler := self.accelerator.scaler) else 1.0
            (pull,) = torch.autograd.grad(factor * total, fake, retain_graph=True)
            pull = pull / factor
        self.accelerator.backward(share * loss, inputs=list(self.network.parameters()))
        return Encounter(
            won.detach(), None if matching is None else matching.detach(), pull, loss.detach()
        )

    def update(self, clip: float) -> None:
        """Take a step along the gradients of all encounters since the last.

        Args:
            clip: largest norm of the gradient.
        """
        if self.accelerator.num_processes > 1:
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad = reduced(self.accelerator, parameter.grad, "mean")
        self.accelerator.clip_grad_norm_(self.network.parameters(), clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _penalty(
        self, pictures: tuple[Tensor, Tensor], said: tuple[Tensor, Tensor], step: int
    ) -> Tensor:
        """Half the weighted :func:`steepness` on originals and on generated pictures.

        Args:
            pictures: originals and generated pictures.
            said: their logits.
            step: of the run, which is the seed of the noise: a resumed run draws the same.
        """
        weights, most = (self.config.r1, self.config.r2), self.config.penalty_crops
        total = torch.zeros((), device=self.accelerator.device)
        chosen = [
            (w, x[:most], y[:most]) for w, x, y in zip(weights, pictures, said, strict=True) if w
        ]
        if not chosen:
            return total
        clean = torch.cat([x.detach() for _, x, _ in chosen])
        random = torch.Generator().manual_seed(step)
        noise = torch.randn(clean.shape, generator=random).to(clean)
        moved = self.network(clean + NOISE * noise).float().split([len(x) for _, x, _ in chosen])
        for (weight, _, before), after in zip(chosen, moved, strict=True):
            total = total + 0.5 * weight * steepness(before, after)
        return total

    def set_rate(self, lr: float) -> None:
        """Set the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-identical continuation needs."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def reduced(accelerator: Accelerator, value: Tensor, how: Literal["mean", "sum"]) -> Tensor:
    """``value`` reduced over all processes, with the type that accelerate leaves open."""
    return cast(Tensor, accelerator.reduce(value, how))


def build_opponent(
    game: AdversarialTerm,
    options: DiscriminatorConfig,
    row: Variant,
    side: int,
    accelerator: Accelerator,
) -> Opponent:
    """The discriminator of a run, on the accelerator's device.

    Args:
        game: the term ``loss.adversarial``.
        options: the section ``[discriminator]``.
        row: the generator's variant, whose widths are the default.
        side: of the smallest high-resolution crop.
        accelerator: of the run.

    Raises:
        OptionError: the crops are too small for a discriminator.
    """
    if side < MIN_SIDE:
        raise OptionError(
            f"the discriminator needs crops of at least {MIN_SIDE}x{MIN_SIDE} pixels, not "
            f"{side}x{side}; raise data.patch"
        )
    network = MUNet(
        options.num_feat or row.critic_feat, options.ch_mult or row.critic_mult, options.branches
    )
    # The stubs of torch do not know that a module takes a memory format.
    cast(Any, network).to(accelerator.device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=options.lr, betas=options.betas, fused=True
    )
    prepared = cast(AcceleratedOptimizer, accelerator.prepare(optimizer))
    return Opponent(network, prepared, accelerator, game)
