"""The optimisers of a run: Adam, or Muon for the kernels and Adam for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from paragonsr2.training.config import ScheduleConfig

#: Number of Newton-Schulz steps, and the coefficients of a step.
NS_STEPS = 5
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
#: Root mean square of an update divided by the learning rate: about that of Adam.
UPDATE_RMS = 0.2


def orthogonalised(matrix: Tensor) -> Tensor:
    """Approximately the nearest matrix with singular values of 1: they end up in 0.7..1.2.

    Args:
        matrix: ``(..., M, N)``, one or many at once; none is zero.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    a, b, c = NS_COEFFICIENTS
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = matrix if wide else matrix.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NS_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Muon for convolution kernels, each treated as a matrix ``(outputs, inputs * taps)``.

    PyTorch's own Muon takes only matrices and computes in bfloat16; float32 is ten times as fast
    on a CPU without bfloat16 instructions. Updates are as large as Adam's, so that Adam's
    learning rates fit.

    Args:
        parameters: kernels with at least two dimensions.
        lr: learning rate.
        momentum: Nesterov momentum of the gradients.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # noqa: ARG002
        """Update the parameters that have gradients; ``closure`` is ignored."""
        for group in self.param_groups:
            for parameter in cast(list[nn.Parameter], group["params"]):
                if parameter.grad is None:
                    continue
                state: dict[str, Any] = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter.grad)
                mean = cast(Tensor, state["momentum"])
                mean.lerp_(parameter.grad, 1.0 - group["momentum"])
                ahead = parameter.grad.lerp(mean, group["momentum"])
                update = orthogonalised(ahead.flatten(1).float())
                size = UPDATE_RMS * max(update.shape) ** 0.5
                parameter.sub_(update.view(ahead.shape).to(parameter), alpha=group["lr"] * size)
        return None


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon suits a parameter: a kernel with at least 16 inputs and 16 outputs."""
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= 16


def build_optimizers(network: nn.Module, schedule: ScheduleConfig) -> list[torch.optim.Optimizer]:
    """One optimiser, or two that divide the parameters of ``network`` between them."""
    parameters = list(network.parameters())
    kernels = [p for p in parameters if is_matrix(p)] if schedule.optimizer == "muon" else []
    mine = {id(kernel) for kernel in kernels}
    rest = [p for p in parameters if id(p) not in mine]
    adam = torch.optim.Adam(rest, lr=schedule.lr, betas=schedule.betas, fused=True)
    return [adam, Muon(kernels, schedule.lr)] if kernels else [adam]
