"""Window self-attention with the position in its values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.errors import OptionError
from paragonsr2.network.layers import DilatedDepthwise, pad_to_multiple

#: End of the keys under which states carry their window.
WINDOW_KEY = "._extra_state"

#: Width of one head.
HEAD_DIM = 32

# Added to the score of a padded pixel: far below any real score, yet finite in float16.
MASKED = -1.0e4


class WindowAttention(nn.Module):
    """Residual self-attention inside windows, shifted by padding and masking.

    The shift pads the top and the left instead of rolling the image round, and padded pixels
    are masked, so opposite borders never see each other. A depthwise 3x3 of the values, added to
    what attention gives, tells where a pixel stands: unlike a bias on the scores it leaves the
    fused kernels alone, and it works across the borders of windows.

    Args:
        channels: of the features.
        width: of queries, keys and values, a multiple of :data:`HEAD_DIM`.
        window: side of a window in pixels.
        shift: pixels by which the window grid starts before the image; 0 or ``window // 2``.
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
        # As the other blocks, it starts with a small part of the sum.
        with torch.no_grad():
            self.project.weight.mul_(0.1)

    # The window goes with the weights: no shape tells it, and with another they mean nothing.
    def get_extra_state(self) -> Tensor:
        """The window, for the state of the network."""
        return torch.tensor(self.window)

    def set_extra_state(self, state: Any) -> None:
        """Check the window that a state was trained with.

        Raises:
            OptionError: it is another.
        """
        if int(state) != self.window:
            raise OptionError(
                f"the state is of window_size {int(state)}, the network of {self.window}; build "
                "the network with the state's"
            )

    def _windows(self, x_BCHW: Tensor) -> Tensor:
        """Cut ``(B, C, H, W)`` with sides on the window into ``(N, C, T)``, N = B·nH·nW."""
        w = self.window
        batch, channels, height, width = x_BCHW.shape
        x = x_BCHW.reshape(batch, channels, height // w, w, width // w, w)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, w * w)

    def attend(self, qkv: Tensor) -> Tensor:
        """Attention alone, of ``(B, 3 * width, H, W)``, any H and W, to ``(B, width, H, W)``."""
        batch, _, height, width = qkv.shape
        w, s, heads, dim = self.window, self.shift, self.heads, HEAD_DIM
        padded = pad_to_multiple(qkv, w, before=s)
        padded_h, padded_w = padded.shape[-2:]
        # N windows, h heads, T pixels per window, D per head
        qkv_NThD = self._windows(padded).reshape(-1, 3, heads, dim, w * w).permute(1, 0, 2, 4, 3)
        q_NhTD, k_NhTD, v_NhTD = qkv_NThD.unbind(0)
        real = pad_to_multiple(torch.ones_like(qkv[:, :1]), w, before=s)
        mask_N11T = (self._windows(1.0 - real) * MASKED)[:, :, None]
        out_NhTD = F.scaled_dot_product_attention(q_NhTD, k_NhTD, v_NhTD, attn_mask=mask_N11T)
        out = out_NhTD.transpose(2, 3).reshape(batch, padded_h // w, padded_w // w, -1, w, w)
        out = out.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, padded_h, padded_w)
        return out[..., s : s + height, s : s + width]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``, any H and W, to the same shape."""
        qkv = self.qkv(x)
        values = qkv.chunk(3, dim=1)[2]
        return x + self.project(self.attend(qkv) + self.position(values))
