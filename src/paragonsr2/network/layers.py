"""Small layers from which the blocks are built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight as grad_conv2d_weight


def zero_(conv: nn.Conv2d) -> None:
    """Initialise ``conv`` to zero."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class TrainedConv(nn.Module, ABC):
    """A 3x3 convolution with zero padding in training form; :meth:`collapsed` deploys it.

    Args:
        in_channels: input width.
        out_channels: output width.
        identity: add the input to the output; requires equal widths.

    Raises:
        ValueError: ``identity`` with unequal widths.
    """

    bias: nn.Parameter
    eye: Tensor | None
    reach = 1

    def __init__(self, in_channels: int, out_channels: int, *, identity: bool = False) -> None:
        super().__init__()
        eye = None
        if identity:
            if in_channels != out_channels:
                raise ValueError(
                    f"identity requires equal widths, not {in_channels}, {out_channels}"
                )
            eye = F.pad(torch.eye(in_channels)[:, :, None, None], (1, 1, 1, 1))
        self.register_buffer("eye", eye, persistent=False)

    @abstractmethod
    def kernel(self) -> Tensor:
        """Return the equivalent kernel ``(out_channels, in_channels, 3, 3)``."""

    @abstractmethod
    def take_kernel(self, kernel: Tensor) -> None:
        """Become what has this kernel, apart from the identity."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        return F.conv2d(x, self.kernel(), self.bias, padding=1)

    def with_identity(self, kernel: Tensor) -> Tensor:
        """Add the identity to a kernel, if there is one."""
        return kernel if self.eye is None else kernel + self.eye

    @torch.no_grad()
    def collapsed(self) -> nn.Conv2d:
        """Return the equivalent plain convolution."""
        kernel = self.kernel()
        conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1).to(self.bias)
        conv.weight.copy_(kernel)
        conv.bias.copy_(self.bias)  # pyright: ignore[reportOptionalMemberAccess]
        return conv

    @torch.no_grad()
    def take(self, deployed: nn.Conv2d) -> None:
        """Become what collapses to ``deployed``."""
        self.take_kernel(deployed.weight if self.eye is None else deployed.weight - self.eye)
        self.bias.copy_(cast(Tensor, deployed.bias))


class CollapsibleConv(TrainedConv):
    """A 3x3 convolution trained as 1x1 expand, 3x3 and 1x1 project.

    The expansion has no bias and the parts are linear, so together they are one 3x3 convolution
    with zero padding. :meth:`kernel` builds it, and the training forward runs it. The hidden width
    is never below the output width, which would limit the rank of the kernel.

    Args:
        in_channels: input width.
        out_channels: output width.
        expansion: hidden width as a multiple of ``in_channels``.
        identity: see :class:`TrainedConv`.
        gain: scale of the initial projection.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        identity: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__(in_channels, out_channels, identity=identity)
        hidden = max(in_channels * expansion, out_channels)
        self.expand = nn.Parameter(torch.randn(hidden, in_channels) * in_channels**-0.5)
        self.mix = nn.Parameter(torch.randn(hidden, hidden, 3, 3) * (9 * hidden) ** -0.5)
        self.project = nn.Parameter(torch.randn(out_channels, hidden) * gain * hidden**-0.5)
        # States of runs hold averages and moments in the order of the parameters.
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def kernel(self) -> Tensor:
        """See :class:`TrainedConv`."""
        kernel = torch.einsum("om,mnkl,ni->oikl", self.project, self.mix, self.expand)
        return self.with_identity(kernel)

    @torch.no_grad()
    def take_kernel(self, kernel: Tensor) -> None:
        """Become what has this kernel, apart from the identity.

        Hidden channels that the kernel does not need keep their weights, and start from an output
        of zero, from where they can learn.
        """
        outputs, inputs = kernel.shape[:2]
        self.expand[:inputs] = torch.eye(inputs)
        self.mix[:outputs] = 0.0
        self.mix[:outputs, :inputs] = kernel
        self.project.zero_()
        self.project[:, :outputs] = torch.eye(outputs)


class PlainConv(TrainedConv):
    """A 3x3 convolution trained as the one it deploys as.

    Its first weights have the spread of those of a :class:`CollapsibleConv`.

    Args:
        in_channels: input width.
        out_channels: output width.
        identity: see :class:`TrainedConv`.
        gain: scale of the initial kernel.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, identity: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__(in_channels, out_channels, identity=identity)
        spread = gain * (9 * in_channels) ** -0.5
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3) * spread)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def kernel(self) -> Tensor:
        """See :class:`TrainedConv`."""
        return self.with_identity(self.weight)

    @torch.no_grad()
    def take_kernel(self, kernel: Tensor) -> None:
        """See :class:`TrainedConv`."""
        self.weight.copy_(kernel)


def trained_conv(
    in_channels: int,
    out_channels: int,
    *,
    expansion: int,
    identity: bool = False,
    gain: float = 1.0,
) -> TrainedConv:
    """A :class:`CollapsibleConv`, or with an ``expansion`` of 0 a :class:`PlainConv`."""
    if not expansion:
        return PlainConv(in_channels, out_channels, identity=identity, gain=gain)
    return CollapsibleConv(
        in_channels, out_channels, expansion=expansion, identity=identity, gain=gain
    )


class GlobalMean(nn.Module):
    """``AdaptiveAvgPool2d(1)`` as the mean over height and width, which exports as ReduceMean.

    It computes in float32 because the sum over an image overflows float16.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(B, C, H, W)`` to ``(B, C, 1, 1)``."""
        return x.float().mean(dim=(2, 3), keepdim=True).to(x.dtype)


class GlobalPool(nn.AdaptiveAvgPool2d):
    """``AdaptiveAvgPool2d(1)`` that deploys as :class:`GlobalMean`."""

    def __init__(self) -> None:
        super().__init__(1)

    def collapsed(self) -> GlobalMean:
        """Return the deployed form."""
        return GlobalMean()

    def take(self, deployed: GlobalMean) -> None:
        """Become what collapses to ``deployed``, which has no weights."""


def pad_to_multiple(x: Tensor, multiple: int, before: int = 0) -> Tensor:
    """Zero-pad ``before`` rows and columns in front, then behind up to a multiple of the side."""
    height, width = x.shape[-2:]
    # Written so that an exporter sees a product, and need not find out that it is one.
    padded_h = multiple * ((height + before + multiple - 1) // multiple)
    padded_w = multiple * ((width + before + multiple - 1) // multiple)
    return F.pad(x, (before, padded_w - width - before, before, padded_h - height - before))


class _DepthwiseOnCpu(torch.autograd.Function):
    """A plain depthwise convolution with fast gradients on a CPU.

    oneDNN's backward kernel is slow for square kernels and for the bias. The weight gradient of a
    square kernel correlates each input plane with the matching plane of the output gradient. As a
    grouped convolution with one group per plane, that is two to three times as fast.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: list[int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        b, c, height, width = x.shape
        grad_x = F.conv2d(grad, weight.flip(2, 3), padding=ctx.padding, groups=c)
        if min(weight.shape[2:]) == 1:
            grad_weight = grad_conv2d_weight(x, weight.shape, grad, padding=ctx.padding, groups=c)
        else:
            planes = x.reshape(1, b * c, height, width)
            kernels = grad.reshape(b * c, 1, height, width)
            taps = F.conv2d(planes, kernels, padding=ctx.padding, groups=b * c)
            grad_weight = taps.reshape(b, *weight.shape).sum(0)
        return grad_x, grad_weight, grad.sum((0, 2, 3)), None


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Run a plain depthwise convolution that keeps the size, on a CPU."""
    padding = [side // 2 for side in weight.shape[2:]]
    if bias is None or not torch.is_grad_enabled():
        return F.conv2d(x, weight, bias, padding=padding, groups=len(weight))
    if torch.is_autocast_enabled("cpu"):
        narrow = torch.get_autocast_dtype("cpu")
        x, weight, bias = x.to(narrow), weight.to(narrow), bias.to(narrow)
    return cast(Tensor, _DepthwiseOnCpu.apply(x, weight, bias, padding))


class DilatedDepthwise(nn.Conv2d):
    """A depthwise convolution that keeps the size, with a fast path for CPUs.

    On a CPU, dilated depthwise convolutions are up to 12 times slower than plain ones. A plain
    one therefore computes the same numbers on rearranged pixels: a square kernel works on each of
    the interleaved grids that its taps fall on, a line on pixels that lie ``dilation`` apart.
    Exported graphs keep the dilated form.

    Args:
        channels: width.
        kernel_size: height and width of the kernel, both odd, and equal unless one is 1.
        dilation: spacing of the taps along each side that has more than one.
    """

    def __init__(self, channels: int, kernel_size: tuple[int, int], dilation: int) -> None:
        tall, wide = kernel_size
        down, right = (dilation if side > 1 else 1 for side in kernel_size)
        padding = (tall // 2 * down, wide // 2 * right)
        super().__init__(
            channels,
            channels,
            kernel_size,
            padding=padding,
            dilation=(down, right),
            groups=channels,
        )
        self.reach = max(padding)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Conv2d has
        """Map ``(B, C, H, W)`` to the same shape."""
        # Compiled, the rearrangements below become slow loops; traced, they stay in the graph.
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        if traced or input.device.type != "cpu":
            return super().forward(input)
        return self._on_cpu(input)

    def _on_cpu(self, x: Tensor) -> Tensor:
        tall, wide = self.kernel_size
        if max(self.dilation) == 1:
            return _depthwise(x, self.weight, self.bias)
        if wide == 1:
            return self._along_columns(x)
        return self._along_rows(x) if tall == 1 else self._on_grids(x)

    # In the channels-last layout (B, H, W, C) neither moves any data: rows that the taps skip are
    # placed side by side, and columns that they skip become channels.
    def _along_columns(self, x: Tensor) -> Tensor:
        d, height = self.dilation[0], x.shape[2]
        padded = (F.pad(x, (0, 0, 0, -height % d)) if height % d else x).permute(0, 2, 3, 1)
        b, h, w, c = padded.shape
        side_by_side = padded.reshape(b, h // d, d * w, c).permute(0, 3, 1, 2)
        y = _depthwise(side_by_side, self.weight, self.bias).permute(0, 2, 3, 1)
        return y.reshape(b, h, w, c).permute(0, 3, 1, 2)[:, :, :height]

    def _along_rows(self, x: Tensor) -> Tensor:
        d, width = self.dilation[1], x.shape[3]
        padded = (F.pad(x, (0, -width % d)) if width % d else x).permute(0, 2, 3, 1)
        b, h, w, c = padded.shape
        stacked = padded.reshape(b, h, w // d, d * c).permute(0, 3, 1, 2)
        bias = None if self.bias is None else self.bias.repeat(d)
        y = _depthwise(stacked, self.weight.repeat(d, 1, 1, 1), bias).permute(0, 2, 3, 1)
        return y.reshape(b, h, w, c).permute(0, 3, 1, 2)[..., :width]

    def _on_grids(self, x: Tensor) -> Tensor:
        d = self.dilation[0]
        height, width = x.shape[-2:]
        x_BHWC = pad_to_multiple(x, d).permute(0, 2, 3, 1)
        b, h, w, c = x_BHWC.shape
        grids = x_BHWC.reshape(b, h // d, d, w // d, d, c).permute(0, 2, 4, 1, 3, 5)
        x = grids.reshape(b * d * d, h // d, w // d, c).permute(0, 3, 1, 2)
        x = _depthwise(x, self.weight, self.bias)
        grids = x.permute(0, 2, 3, 1).reshape(b, d, d, h // d, w // d, c)
        y_BHWC = grids.permute(0, 3, 1, 4, 2, 5).reshape(b, h, w, c)
        return y_BHWC.permute(0, 3, 1, 2)[..., :height, :width]


class WideContext(DilatedDepthwise):
    """The input plus a dilated depthwise convolution of it.

    When deployed, the middle tap includes the sum. It takes the arguments of
    :class:`DilatedDepthwise`.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Conv2d has
        """Map ``(B, C, H, W)`` to the same shape."""
        return input + super().forward(input)

    @torch.no_grad()
    def collapsed(self) -> DilatedDepthwise:
        """Return the equivalent single convolution."""
        tall, wide = self.kernel_size
        conv = DilatedDepthwise(self.in_channels, (tall, wide), max(self.dilation)).to(self.weight)
        conv.load_state_dict(self.state_dict())
        conv.weight[:, :, tall // 2, wide // 2] += 1.0
        return conv

    @torch.no_grad()
    def take(self, deployed: DilatedDepthwise) -> None:
        """Become what collapses to ``deployed``."""
        tall, wide = self.kernel_size
        self.load_state_dict(deployed.state_dict())
        self.weight[:, :, tall // 2, wide // 2] -= 1.0


class ChannelGate(nn.Module):
    """Scale each channel by a factor computed from its mean over the whole image; 1 is neutral.

    Args:
        channels: width.
    Source: Hu et al., "Squeeze-and-Excitation Networks", 2018.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = GlobalPool()
        narrow = max(8, channels // 32 * 8)
        self.squeeze = nn.Conv2d(channels, narrow, 1)
        self.excite = nn.Conv2d(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``(B, C, H, W)``."""
        squeezed = F.leaky_relu(self.squeeze(self.pool(x)), 0.1)
        return x * 2.0 * torch.sigmoid(self.excite(squeezed))


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Keep what follows in the dtype of ``x``: bfloat16 would round to 8 bits of mantissa."""
    device = x.device.type
    # Costs are counted on the meta device, which has no autocast. Exported graphs have none either.
    if device == "meta" or not torch.is_autocast_enabled(device):
        return nullcontext()
    return cast(AbstractContextManager[None], torch.autocast(device, enabled=False))
