"""Enlarge the example photograph with the bundled Realtime weights; PyTorch is not needed."""

from __future__ import annotations

import time
from pathlib import Path

import paragonsr2
from paragonsr2.images.header import Picture
from paragonsr2.images.reading import read_picture
from paragonsr2.images.writing import write_picture

HERE = Path(__file__).parent
OUTPUT = HERE.parent / "demo" / "houses_x2.png"


def main() -> None:
    """Read, enlarge, write, say where."""
    started = time.perf_counter()
    picture = read_picture(HERE / "houses.png")
    upscaler = paragonsr2.Upscaler("realtime", scale=2)
    large = upscaler(picture.pixels)
    write_picture(OUTPUT, Picture(large, picture.carried))
    seconds = time.perf_counter() - started
    height, width = picture.pixels.shape[:2]
    print(f"{width}x{height} -> {large.shape[1]}x{large.shape[0]} in {seconds:.2f} s")
    print(OUTPUT.resolve())


if __name__ == "__main__":
    main()
