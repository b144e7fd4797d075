"""Shifted-window self-attention with a learned relative position bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.network.layers import pad_to_multiple

# Added to the score of a padded pixel: far below any real score, yet finite in float16.
MASKED = -1.0e4


def relative_index(window: int) -> Tensor:
    """Row of the bias table for each pair of pixels of a window, ``(T, T)``, T = window²."""
    axis = torch.arange(window)
    y, x = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return dy * (2 * window - 1) + dx


class WindowAttention(nn.Module):
    """Self-attention inside windows, shifted by padding and masking.

    The shift pads the top and the left instead of rolling the image round, and padded pixels
    are masked, so opposite borders never see each other.

    Args:
        channels: width, a multiple of ``head_dim``.
        window: side of a window in pixels.
        shift: pixels by which the window grid starts before the image; 0 or ``window // 2``.
        head_dim: width of one head.
    Source: Liu et al., "Swin Transformer", 2021.
    """

    index: Tensor

    def __init__(self, channels: int, window: int, shift: int, head_dim: int = 16) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.heads, self.head_dim = channels // head_dim, head_dim
        self.reach = window - 1
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, self.heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("index", relative_index(window), persistent=False)

    def _windows(self, x_BCHW: Tensor) -> Tensor:
        """Cut ``(B, C, H, W)`` with sides on the window into ``(B·nH·nW, C, T)``."""
        w = self.window
        batch, channels, height, width = x_BCHW.shape
        x = x_BCHW.reshape(batch, channels, height // w, w, width // w, w)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, w * w)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Attend within ``(B, C, H, W)``, any H and W; shape and dtype stay."""
        batch, channels, height, width = x_BCHW.shape
        w, heads, dim = self.window, self.heads, self.head_dim

        qkv = pad_to_multiple(self.qkv(x_BCHW), w, before=self.shift)
        padded_h, padded_w = qkv.shape[-2:]
        # N windows, h heads, T pixels per window, D per head
        qkv_NThD = self._windows(qkv).reshape(-1, 3, heads, dim, w * w).permute(1, 0, 2, 4, 3)
        q_NhTD, k_NhTD, v_NhTD = qkv_NThD.unbind(0)

        # The mask rides as extra features of q and k: a mask per window would be as large as
        # all the scores. CUDA's fused kernels need the width on a multiple of 8.
        real = pad_to_multiple(torch.ones_like(x_BCHW[:, :1]), w, before=self.shift)
        mask_N1T1 = self._windows((1.0 - real) * MASKED)[..., None]
        extra = 8 if x_BCHW.is_cuda else 1
        q = F.pad(q_NhTD * dim**-0.5, (0, extra), value=1.0)
        k_mask = F.pad(mask_N1T1.expand(-1, heads, -1, -1), (0, extra - 1))
        k = torch.cat([k_NhTD, k_mask], dim=-1)

        bias_1hTT = self.bias_table[self.index].permute(2, 0, 1)[None].to(q.dtype)
        out_NhTD = F.scaled_dot_product_attention(q, k, v_NhTD, attn_mask=bias_1hTT, scale=1.0)

        out = out_NhTD.transpose(2, 3).reshape(batch, padded_h // w, padded_w // w, channels, w, w)
        out = out.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, padded_h, padded_w)
        s = self.shift
        return self.project(out[..., s : s + height, s : s + width])
