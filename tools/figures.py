"""Draw the before/after image of the README from the example photograph.

The photograph is downscaled by the protocol and upscaled by each method, and the results are
shown beside the original.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import paragonsr2
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.quality import crop_to_multiple, score, shrink

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "images" / "before_after.png"
CROP = (slice(210, 340), slice(480, 680))
ZOOM = 2


def main() -> None:
    """Write the image."""
    hr = crop_to_multiple(read_picture(ROOT / "examples" / "houses.png").pixels, 2)
    lr = shrink(hr, 2)
    panels: list[tuple[str, np.ndarray, float | None]] = []
    for label, model in (
        ("bicubic", "bicubic"),
        ("Magic Kernel Sharp", "magic:1.0"),
        ("Realtime", "realtime"),
    ):
        sr = paragonsr2.Upscaler(model, scale=2)(lr)
        panels.append((label, sr, score(sr, hr, shave=2).psnr_y))
    panels.append(("original", hr, None))
    font = ImageFont.load_default(size=18)
    tiles: list[np.ndarray] = []
    for label, pixels, decibel in panels:
        crop = Image.fromarray(np.ascontiguousarray(pixels[CROP]))
        crop = crop.resize((crop.width * ZOOM, crop.height * ZOOM), Image.Resampling.NEAREST)
        tile = Image.new("RGB", (crop.width + 8, crop.height + 32), "white")
        tile.paste(crop, (4, 28))
        text = label if decibel is None else f"{label}  {decibel:.2f} dB"
        ImageDraw.Draw(tile).text((6, 4), text, fill="black", font=font)
        tiles.append(np.asarray(tile))
    grid = [np.hstack(tiles[:2]), np.hstack(tiles[2:])]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(grid)).save(TARGET, optimize=True)
    print(TARGET)


if __name__ == "__main__":
    main()
