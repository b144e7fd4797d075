"""Make pictures with full chroma out of pictures without, to train on beside them.

    python tools/full_chroma.py ../shared/data/train/free runs/full_chroma

JPEG and lossy WebP store colour at half resolution. A network that saw nothing else takes the
detail of one channel for that of all, and is wrong at edges between saturated colours. Shrunk to
half, such a picture has as much colour detail as brightness. Writes PNG.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image


def shrink(source: Path, target: Path) -> None:
    """Write ``source`` at half its size to ``target``."""
    with Image.open(source) as image:
        rgb = image.convert("RGB")
    size = (rgb.width // 2, rgb.height // 2)
    box = (0, 0, 2 * size[0], 2 * size[1])
    rgb.resize(size, Image.Resampling.LANCZOS, box=box).save(target)


def main() -> None:
    """Shrink a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    options.target.mkdir(parents=True, exist_ok=True)
    paths = sorted(path for path in options.source.iterdir() if path.is_file())
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(shrink, path, options.target / f"{path.stem}.png") for path in paths]
        for job in jobs:
            job.result()
    print(f"{len(paths)} pictures in {options.target}")


if __name__ == "__main__":
    main()
