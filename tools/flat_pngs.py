"""Sizes and times of PNG files of ten screenshots, drawn by code and enlarged, and of photographs.

    python tools/flat_pngs.py --data ../shared/data -o results/quality/flat_pngs.json

Before: every picture with the filter and the compression of photographs. After: both chosen by a
sample of the picture. The time is that of writing; that of enlarging stands beside it.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from PIL import Image, ImageDraw

from paragonsr2 import Upscaler
from paragonsr2.images.png import save_png
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.training.drawn import draw_picture

SIZE = (640, 480)
SCREENSHOTS = 10
CALLS = 5


def screenshot(index: int, photo: Image.Image) -> np.ndarray:
    """A desktop of windows with text, tables, icons, gradients, drawings and photographs."""
    rng = np.random.default_rng(index)
    grounds = [(255, 255, 255), (240, 240, 240), (30, 34, 42), (0, 90, 158), (246, 244, 236)]
    image = Image.new("RGB", SIZE, grounds[index % len(grounds)])
    pen = ImageDraw.Draw(image)
    for _ in range(1 + index % 4):
        left, top = (int(v) for v in rng.integers((10, 10), (220, 120)))
        right, bottom = left + int(rng.integers(200, 400)), top + int(rng.integers(150, 340))
        pen.rectangle((left, top, right, bottom), fill=(252, 252, 252), outline=(90, 90, 90))
        pen.rectangle((left, top, right, top + 18), fill=(60, 110, 190))
        pen.text((left + 6, top + 3), f"Window {index}", fill=(255, 255, 255))
        for number, y in enumerate(range(top + 26, bottom - 12, 14)):
            words = " ".join("lorem ipsum dolor sit amet"[:: 1 + number % 2].split())
            pen.text((left + 8, y), words, fill=(20, 20, 20))
        if rng.random() < 0.5:
            for x in range(left + 40, right, 60):
                pen.line([(x, top + 20), (x, bottom)], fill=(200, 200, 200))
    for number in range(6):
        x = 20 + 36 * number
        pen.ellipse((x, 440, x + 24, 464), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    if index in (3, 7):
        ramp = np.linspace(40, 220, SIZE[0]).astype(np.uint8)
        image.paste(Image.fromarray(np.repeat(ramp[None, :, None], 40, 0).repeat(3, 2)), (0, 0))
    if index in (4, 8):
        image.paste(photo.resize((200, 150)), (400, 40))
    if index in (5, 9):
        image.paste(Image.fromarray(draw_picture(index, 3)).crop((0, 0, 240, 240)), (380, 200))
    return np.asarray(image)


def measure(save: Callable[[io.BytesIO], None]) -> tuple[int, float]:
    """Bytes of the file, and the milliseconds of the quickest of several calls."""
    times: list[float] = []
    for _ in range(CALLS):
        file = io.BytesIO()
        started = time.perf_counter()
        save(file)
        times.append(1000 * (time.perf_counter() - started))
    return file.tell(), round(min(times), 1)


def compare(pixels: np.ndarray, upscaler: Upscaler) -> dict[str, Any]:
    """Enlarge one picture and write it in both ways."""
    started = time.perf_counter()
    large = upscaler(pixels)
    enlarging = time.perf_counter() - started
    image = pyvips.Image.new_from_array(large).copy(interpretation="srgb")
    source = io.BytesIO()
    Image.fromarray(pixels).save(source, "png", optimize=True)
    before, time_before = measure(lambda file: save_png(image, file))
    after, time_after = measure(lambda file: save_png(image, file, in_memory=True))
    return {
        "input_bytes": source.tell(), "bytes_before": before, "bytes_after": after,
        "ms_enlarging": round(1000 * enlarging, 1), "ms_before": time_before,
        "ms_after": time_after, "colours": len(np.unique(large.reshape(-1, 3), axis=0)),
    }  # fmt: skip


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with val/")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    paths = sorted((options.data / "val").glob("*.png"))
    photos = {path.stem: read_picture(path).pixels[:480, :640] for path in paths}
    embedded = Image.fromarray(next(iter(photos.values())))
    upscaler = Upscaler("realtime", 2)
    flat = np.full((480, 640, 3), (250, 248, 240), np.uint8)
    pictures = {"flat": flat} | {
        f"screenshot_{number}": screenshot(number, embedded) for number in range(SCREENSHOTS)
    }
    write_result(
        options.output,
        {
            "what": "PNG files of enlarged pictures (realtime x2), written before and after",
            "screenshots": {name: compare(p, upscaler) for name, p in pictures.items()},
            "photographs": {name: compare(p, upscaler) for name, p in photos.items()},
        },
    )


if __name__ == "__main__":
    main()
