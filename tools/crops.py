"""Show what each bundled model does, on crops that a rule chooses.

    python tools/crops.py --data ../shared/data

The validation images are downscaled by the protocol and upscaled again. Windows of ``SIDE``
pixels are ranked by the gain in PSNR-Y over bicubic, and the largest gain, the median and the
largest loss are drawn, one row each. Flat windows, which any method gets right, are left out.
Writes ``docs/images/crops_MODEL.png`` and ``results/quality/crops.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, luma, psnr, shrink
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.catalogue import Entry, entries

ROOT = Path(__file__).resolve().parent.parent
SIDE = 96
ZOOM = 2
#: A window in which bicubic exceeds this PSNR-Y in dB is flat.
FLAT = 45.0


class Window(NamedTuple):
    """One window, upscaled by bicubic and by the model."""

    name: str
    y: int
    x: int
    bicubic: float
    model: float
    pictures: tuple[Pixels8, Pixels8, Pixels8]

    @property
    def gain(self) -> float:
        """Gain in PSNR-Y, dB."""
        return self.model - self.bicubic


def windows(entry: Entry, folder: Path) -> list[Window]:
    """All windows that are not flat, by gain, largest first."""
    model = Upscaler(f"{entry.variant}:{entry.kind}", entry.scale, precision="fp32")
    bicubic = Upscaler("bicubic", scale=entry.scale)
    found: list[Window] = []
    for path in sorted(folder.iterdir()):
        hr = crop_to_multiple(read_picture(path).pixels, entry.scale)
        lr = shrink(hr, entry.scale)
        plain, ours = bicubic(lr), model(lr)
        for y in range(SIDE, hr.shape[0] - 2 * SIDE + 1, SIDE):
            for x in range(SIDE, hr.shape[1] - 2 * SIDE + 1, SIDE):
                place = (slice(y, y + SIDE), slice(x, x + SIDE))
                parts = (plain[place], ours[place], hr[place])
                truth = luma(parts[2])
                before, after = (psnr(luma(part), truth) for part in parts[:2])
                if before < FLAT:
                    found.append(Window(path.name, y, x, before, after, parts))
    return sorted(found, key=lambda window: -window.gain)


def drawn(label: str, window: Window, model: str) -> Pixels8:
    """Draw a row: bicubic, the model and the original, with captions."""
    texts = (f"bicubic {window.bicubic:.2f} dB", f"{model} {window.model:.2f} dB", "original")
    font = ImageFont.load_default(size=13)
    row = Image.new("RGB", (3 * (SIDE * ZOOM + 4), SIDE * ZOOM + 42), "white")
    draw = ImageDraw.Draw(row)
    head = f"{label} ({window.gain:+.2f} dB): {window.name}, {window.x}, {window.y}"
    draw.text((2, 2), head, fill="black", font=font)
    for index, (text, pixels) in enumerate(zip(texts, window.pictures, strict=True)):
        left = index * (SIDE * ZOOM + 4)
        draw.text((left + 2, 20), text, fill="black", font=font)
        large = Image.fromarray(np.ascontiguousarray(pixels))
        large = large.resize((SIDE * ZOOM,) * 2, Image.Resampling.NEAREST)
        row.paste(large, (left, 40))
    return np.asarray(row)


def main() -> None:
    """Draw the crops of every bundled model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds val/")
    parser.add_argument("--only", nargs="*", help="names of models; the others keep their crops")
    options = parser.parse_args()
    target_file = ROOT / "results" / "quality" / "crops.json"
    known = json.loads(target_file.read_text(encoding="utf-8"))["models"] if options.only else {}
    result: dict[str, object] = {}
    for entry in entries():
        if options.only and entry.name not in options.only:
            result[entry.name] = known[entry.name]
            continue
        ranked = windows(entry, options.data / "val")
        gains = [window.gain for window in ranked]
        chosen = {
            "largest gain": ranked[0],
            "median": ranked[len(ranked) // 2],
            "least gain" if gains[-1] >= 0 else "largest loss": ranked[-1],
        }
        name = f"{entry.variant} x{entry.scale}"
        rows = [drawn(label, window, name) for label, window in chosen.items()]
        target = ROOT / "docs" / "images" / f"crops_{entry.name}.png"
        Image.fromarray(np.vstack(rows)).save(target, optimize=True)
        result[entry.name] = {
            "windows": len(ranked),
            "worse_than_bicubic": sum(gain < 0 for gain in gains),
            "chosen": {
                label: {"picture": w.name, "x": w.x, "y": w.y, "bicubic": round(w.bicubic, 3),
                        "model": round(w.model, 3)}
                for label, w in chosen.items()
            },
        }  # fmt: skip
        print(target)
    about = {"side": SIDE, "flat_above_db": FLAT, "set": "val", "models": result}
    write_result(target_file, about)


if __name__ == "__main__":
    main()
