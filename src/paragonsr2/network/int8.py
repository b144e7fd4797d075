"""Training for INT8: the deployed network, with weights and inputs of its body rounded to 8 bits.

An engine with 8-bit products computes what this network computes in float32: each convolution of
the body reads whole numbers from -127 to 127 times a step, and so are its weights. The first and
the last convolution, the fusion, the base path and the gate map stay in float32: they are cheap,
and rounding the fused features alone costs more than rounding all the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from paragonsr2.network.blocks import DeployedGateBlock
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.network.layers import without_autocast

#: Largest whole number on either side.
LEVELS = 127
#: Suffix of the keys under which states hold the step of an input; it tells an INT8 state.
STEP_KEY = ".input_log_step"


class _Rounded(torch.autograd.Function):
    """Round to whole numbers; the gradient passes as if nothing had been rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        return grads[0]


def _round(x: Tensor) -> Tensor:
    return cast(Tensor, _Rounded.apply(x))


class Int8Conv(nn.Conv2d):
    """A convolution whose input and weights are rounded to 8 bits.

    The input has one step, which is learned; each output channel's weights have the step that
    just holds the largest of them. The bias is a whole number of the product of both steps, in
    which engines add.

    Args:
        conv: gives weights, bias and geometry.
        beside: a convolution that reads the same input and owns its step; None owns one.
    Source: Esser et al., "Learned Step Size Quantization", 2020.
    """

    def __init__(self, conv: nn.Conv2d, beside: Int8Conv | None = None) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, cast("tuple[int, int]", conv.kernel_size),
            stride=cast("tuple[int, int]", conv.stride),
            padding=cast("tuple[int, int]", conv.padding),
            dilation=cast("tuple[int, int]", conv.dilation), groups=conv.groups,
        )  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias
        if beside is None:
            self.input_log_step = nn.Parameter(torch.tensor(math.log(1 / LEVELS)))
        self.rounding = True
        # In a list, so that this module does not hold the other as its own part.
        self._owner = [beside or self]

    @property
    def input_step(self) -> Tensor:
        """The step of the input, a scalar."""
        return cast(Tensor, self._owner[0].input_log_step).exp()

    @property
    def weight_steps(self) -> Tensor:
        """The steps of the weights, ``(outputs,)``."""
        largest = self.weight.detach().flatten(1).abs().amax(dim=1)
        return largest.clamp(min=1e-8) / LEVELS

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in PyTorch
        """As :class:`torch.nn.Conv2d`, in float32 whatever surrounds it."""
        with without_autocast(input):
            x = input.to(self.weight)
            if not self.rounding:
                return self._conv_forward(x, self.weight, self.bias)
            step, steps = self.input_step, self.weight_steps
            x = _round((x / step).clamp(-LEVELS, LEVELS)) * step
            weight = _round(self.weight / steps[:, None, None, None]) * steps[:, None, None, None]
            return self._conv_forward(x, weight, self.rounded_bias())

    def rounded_bias(self) -> Tensor | None:
        """The bias as engines add it."""
        if self.bias is None:
            return None
        sums = self.input_step * self.weight_steps
        return _round(self.bias / sums) * sums


def to_int8(network: ParagonSR2) -> ParagonSR2:
    """The deployed form of ``network`` with the convolutions of its body as :class:`Int8Conv`.

    The steps of the inputs are guesses until :func:`calibrate` or a state sets them.
    """
    deployed = network.collapse()
    for group in deployed.groups:
        _replace(group)
    return deployed


def _replace(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        if isinstance(child, nn.Conv2d):
            beside = None
            if isinstance(parent, DeployedGateBlock) and name == "gate":
                beside = cast(Int8Conv, parent.value)
            parent.register_module(name, Int8Conv(child, beside))
        else:
            _replace(child)


def int8_convs(network: nn.Module) -> Iterator[tuple[str, Int8Conv]]:
    """The rounded convolutions of a network, with their names."""
    for name, module in network.named_modules():
        if isinstance(module, Int8Conv):
            yield name, module


def is_int8(network: nn.Module) -> bool:
    """Whether a network was built by :func:`to_int8`."""
    return any(True for _ in int8_convs(network))


@torch.no_grad()
def calibrate(network: ParagonSR2, lr: Tensor) -> None:
    """Set the step of every input so that it just holds what the network makes of ``lr``.

    Args:
        network: of :func:`to_int8`; its convolutions do not round meanwhile.
        lr: typical pictures, ``(B, 3, H, W)`` in 0..1.
    """

    def watch(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        largest = float(given[0].abs().amax())
        cast(Int8Conv, module).input_log_step.fill_(math.log(max(largest, 1e-6) / LEVELS))

    owners = [conv for _, conv in int8_convs(network) if hasattr(conv, "input_log_step")]
    hooks = [conv.register_forward_pre_hook(watch) for conv in owners]
    set_rounding(network, on=False)
    network(lr)
    set_rounding(network, on=True)
    for hook in hooks:
        hook.remove()


def set_rounding(network: nn.Module, *, on: bool) -> None:
    """Let all convolutions of ``network`` round, or compute in float32."""
    for _, conv in int8_convs(network):
        conv.rounding = on
