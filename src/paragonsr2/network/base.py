"""The base path: a fixed classical upsampler that carries the structure of the picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.arrays.kernels import polyphase_taps


class MagicKernelSharp2021(nn.Module):
    """Enlarge with the fixed Magic Kernel; nothing is learned.

    Two depthwise convolutions, one per axis, compute all output phases in low resolution, so
    that the result can be added to the detail before the last PixelShuffle.

    Args:
        scale: 2, 3, 4 or 8.
        upsampler_alpha: 0 = Magic Kernel, 1 = Magic Kernel Sharp 2021, between = linear blend.

    Raises:
        ScaleError: ``scale`` is not supported.
        OptionError: ``upsampler_alpha`` is outside 0..1.
    Source: Costella, "The Magic Kernel", 2021 form.
    """

    vertical: Tensor
    horizontal: Tensor

    def __init__(self, scale: int, upsampler_alpha: float = 0.0) -> None:
        super().__init__()
        self.scale, self.upsampler_alpha = scale, upsampler_alpha
        taps = torch.from_numpy(polyphase_taps(scale, upsampler_alpha)).float()
        self.reach = taps.shape[1] // 2
        # Derived from scale and alpha, which the weights' metadata carries: not saved twice.
        vertical = taps[:, None, :, None].repeat(3, 1, 1, 1)
        horizontal = taps[:, None, None, :].repeat(3 * scale, 1, 1, 1)
        self.register_buffer("vertical", vertical, persistent=False)
        self.register_buffer("horizontal", horizontal, persistent=False)

    def phases(self, x: Tensor) -> Tensor:
        """All output phases of ``x`` in PixelShuffle order.

        Args:
            x: ``(B, 3, H, W)``, any float dtype.

        Returns:
            ``(B, 3 * scale**2, H, W)``, dtype of ``x``.
        """
        x = F.pad(x, (self.reach,) * 4, mode="replicate")
        x = F.conv2d(x, self.vertical, groups=3)
        return F.conv2d(x, self.horizontal, groups=3 * self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge ``(B, 3, H, W)`` to ``(B, 3, H * scale, W * scale)``, dtype of ``x``."""
        return F.pixel_shuffle(self.phases(x), self.scale)

    def collapsed(self) -> MagicKernelSharp2021:
        """The form that is exported: one pass where the kernel has three taps."""
        if self.reach > 1:
            return self
        return OnePassMagicKernel(self.scale, self.upsampler_alpha).to(self.vertical)


class OnePassMagicKernel(MagicKernelSharp2021):
    """The same with both axes in one convolution.

    That is more multiply-adds, but one pass over the phases fewer, and engines wait for memory
    here. It pays for kernels of three taps, which alpha 0 has.

    Args:
        scale: 2, 3, 4 or 8.
        upsampler_alpha: as of :class:`MagicKernelSharp2021`.
    """

    kernel: Tensor

    def __init__(self, scale: int, upsampler_alpha: float = 0.0) -> None:
        super().__init__(scale, upsampler_alpha)
        kernel = self.vertical.repeat_interleave(scale, dim=0) * self.horizontal
        # An exported graph would hold them unused.
        del self.vertical, self.horizontal
        self.register_buffer("kernel", kernel, persistent=False)

    def phases(self, x: Tensor) -> Tensor:
        """All output phases of ``x``, as :meth:`MagicKernelSharp2021.phases`."""
        return F.conv2d(F.pad(x, (self.reach,) * 4, mode="replicate"), self.kernel, groups=3)

    def collapsed(self) -> MagicKernelSharp2021:
        """Itself."""
        return self
