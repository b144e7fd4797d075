"""The base path: a fixed classical upsampler that carries the structure of the picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.arrays.kernels import polyphase_taps


class MagicKernelSharp2021(nn.Module):
    """Enlarge with the fixed Magic Kernel; nothing is learned.

    All output phases are computed in low resolution, so the result can be added to the detail
    before the last PixelShuffle. Two depthwise convolutions, one per axis, do this; or a single
    one for both axes. The single pass needs more multiply-adds but one pass over memory less,
    which pays as long as the kernel has three taps (alpha 0).

    Args:
        scale: 2, 3, 4 or 8.
        upsampler_alpha: 0 is the Magic Kernel, 1 is Magic Kernel Sharp 2021; values between blend
            them linearly.
        one_pass: filter both axes in one convolution.

    Raises:
        ScaleError: ``scale`` is not supported.
        OptionError: ``upsampler_alpha`` is outside 0..1.
    Source: Costella, "The Magic Kernel", 2021 form.
    """

    def __init__(self, scale: int, upsampler_alpha: float = 0.0, *, one_pass: bool = False) -> None:
        super().__init__()
        self.scale, self.upsampler_alpha = scale, upsampler_alpha
        taps = torch.from_numpy(polyphase_taps(scale, upsampler_alpha)).float()
        self.reach = taps.shape[1] // 2
        vertical = taps[:, None, :, None].repeat(3, 1, 1, 1)
        horizontal = taps[:, None, None, :].repeat(3 * scale, 1, 1, 1)
        if one_pass:
            kernels = {"kernel": vertical.repeat_interleave(scale, dim=0) * horizontal}
        else:
            kernels = {"vertical": vertical, "horizontal": horizontal}
        self._passes = tuple(kernels)
        for name, kernel in kernels.items():
            # Scale and alpha, which the metadata of the weights holds, determine the kernels.
            self.register_buffer(name, kernel, persistent=False)

    def phases(self, x: Tensor) -> Tensor:
        """Compute all output phases of ``x`` in PixelShuffle order.

        Args:
            x: ``(B, 3, H, W)``, any float dtype.

        Returns:
            ``(B, 3 * scale**2, H, W)`` in the dtype of ``x``.
        """
        x = F.pad(x, (self.reach,) * 4, mode="replicate")
        for name in self._passes:
            kernel = self.get_buffer(name)
            x = F.conv2d(x, kernel, groups=x.shape[1])
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge ``(B, 3, H, W)`` to ``(B, 3, H * scale, W * scale)`` in the dtype of ``x``."""
        return F.pixel_shuffle(self.phases(x), self.scale)

    def collapsed(self) -> MagicKernelSharp2021:
        """Return the deployed form, which uses one pass if the kernel has three taps."""
        one_pass = self.reach == 1
        return MagicKernelSharp2021(self.scale, self.upsampler_alpha, one_pass=one_pass).to(
            self.get_buffer(self._passes[0])
        )

    def take(self, deployed: MagicKernelSharp2021) -> None:
        """Become what collapses to ``deployed``, which has no weights."""
