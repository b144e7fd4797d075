"""Labels above the pictures of a sheet."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paragonsr2.arrays.pixels import Pixels8


def labelled(label: str, pixels: Pixels8) -> Pixels8:
    """Write a label above an image ``(H, W, 3)`` and leave a white margin around it."""
    whole = Image.new("RGB", (pixels.shape[1] + 6, pixels.shape[0] + 24), "white")
    whole.paste(Image.fromarray(np.ascontiguousarray(pixels)), (3, 21))
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(whole).text((4, 2), label, fill="black", font=font)
    return np.asarray(whole)
