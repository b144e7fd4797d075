"""Window self-attention that takes position from its values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.errors import OptionError
from paragonsr2.network.layers import DilatedDepthwise, pad_to_multiple

#: Suffix of the keys under which states hold their window.
WINDOW_KEY = "._extra_state"

#: Width of one head.
HEAD_DIM = 32

# Added to the scores of padded pixels: far below any real score, yet finite in float16.
MASKED = -1.0e4


class WindowAttention(nn.Module):
    """Residual self-attention inside windows, shifted by padding and masking.

    To shift the windows, the image is padded at the top and left rather than rolled around, and
    padded pixels are masked: opposite borders never see each other. Position enters through a
    depthwise 3x3 convolution of the values, added to the attention output. Unlike a bias on the
    scores, it works with fused kernels and across window borders.

    Args:
        channels: width of the features.
        width: width of queries, keys and values, a multiple of :data:`HEAD_DIM`.
        window: side of a window, in pixels.
        shift: pixels by which the window grid starts before the image, 0 or ``window // 2``.
    Source: Liu et al., "Swin Transformer", 2021; position: Dong et al., "CSWin Transformer", 2022.
    """

    def __init__(self, channels: int, width: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.heads = width // HEAD_DIM
        self.reach = window - 1
        self.qkv = nn.Conv2d(channels, 3 * width, 1)
        self.position = DilatedDepthwise(width, (3, 3), 1)
        self.project = nn.Conv2d(width, channels, 1)
        # Like the other blocks, it starts with a small share of the sum.
        with torch.no_grad():
            self.project.weight.mul_(0.1)

    # The window is stored with the weights: they are useless with another one, and no tensor shape
    # reveals it.
    def get_extra_state(self) -> Tensor:
        """Return the window, to be stored in the state of the network."""
        return torch.tensor(self.window)

    def set_extra_state(self, state: Any) -> None:
        """Check the window that the weights were trained with.

        Raises:
            OptionError: this module has a different window.
        """
        if int(state) != self.window:
            raise OptionError(
                f"the weights were trained with window_size {int(state)}, but the network has "
                f"{self.window}; build it with {int(state)}"
            )

    def _windows(self, x_BCHW: Tensor) -> Tensor:
        """Cut ``(B, C, H, W)`` with sides that are multiples of the window into ``(N, C, T)``."""
        w = self.window
        batch, channels, height, width = x_BCHW.shape
        x = x_BCHW.reshape(batch, channels, height // w, w, width // w, w)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, w * w)

    def attend(self, qkv: Tensor) -> Tensor:
        """Attend only: map ``(B, 3 * width, H, W)`` of any size to ``(B, width, H, W)``."""
        batch, _, height, width = qkv.shape
        w, s, heads, dim = self.window, self.shift, self.heads, HEAD_DIM
        padded = pad_to_multiple(qkv, w, before=s)
        padded_h, padded_w = padded.shape[-2:]
        rows, columns = padded_h // w, padded_w // w
        # N windows, h heads, T pixels per window, D per head
        qkv_NThD = self._windows(padded).reshape(-1, 3, heads, dim, w * w).permute(1, 0, 2, 4, 3)
        q_NhTD, k_NhTD, v_NhTD = qkv_NThD.unbind(0)
        real = pad_to_multiple(torch.ones_like(qkv[:, :1]), w, before=s)
        mask_N11T = (self._windows(1.0 - real) * MASKED)[:, :, None]
        out_NhTD = F.scaled_dot_product_attention(q_NhTD, k_NhTD, v_NhTD, attn_mask=mask_N11T)
        out = out_NhTD.transpose(2, 3).reshape(batch, rows, columns, heads * dim, w, w)
        out = out.permute(0, 3, 1, 4, 2, 5).reshape(batch, heads * dim, padded_h, padded_w)
        return out[..., s : s + height, s : s + width]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` of any size to the same shape."""
        qkv = self.qkv(x)
        values = qkv.chunk(3, dim=1)[2]
        return x + self.project(self.attend(qkv) + self.position(values))
