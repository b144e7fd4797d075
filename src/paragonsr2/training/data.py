"""Training crops from decoded pairs in memory: a batch is a pure function of seed and step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from paragonsr2.errors import TrainingError
from paragonsr2.measure.quality import crop_to_multiple, shrink
from paragonsr2.pixels.arrays import Pixels8

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True)
class Pair:
    """A picture and its protocol shrink, ``(H, W, 3)`` uint8; ``hr`` is exactly scale times."""

    name: str
    hr: Pixels8
    lr: Pixels8


def list_images(folders: Iterable[Path]) -> list[Path]:
    """All image files below ``folders``, sorted.

    Raises:
        TrainingError: a folder is missing or holds no image.
    """
    found: list[Path] = []
    for folder in folders:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise TrainingError(f"there are no images in {folder}; check the [data] section")
        found += files
    return found


def read_rgb(path: Path) -> Pixels8:
    """Decode with Pillow to ``(H, W, 3)`` uint8.

    Raises:
        TrainingError: the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise TrainingError(f"cannot read training image {path}: {error}") from error


def load_pairs(paths: Sequence[Path], scale: int, min_lr: int = 1) -> list[Pair]:
    """Decode and shrink in parallel.

    Args:
        paths: image files.
        scale: of the network.
        min_lr: least side of the low-resolution picture.

    Raises:
        TrainingError: an image is unreadable or too small.
    """

    def load(path: Path) -> Pair:
        hr = np.ascontiguousarray(crop_to_multiple(read_rgb(path), scale))
        if min(hr.shape[:2]) < min_lr * scale:
            raise TrainingError(
                f"{path} is {hr.shape[1]}x{hr.shape[0]}: smaller than a crop of "
                f"{min_lr * scale}; lower data.patch or remove it"
            )
        return Pair(path.name, hr, shrink(hr, scale))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(load, paths))


class CropSampler:
    """Random crops, flipped and turned; pictures are drawn by their area.

    There is no sampler state to save: crop ``row`` of step ``step`` depends only on the seed
    and these two numbers, so a resumed run and a run on several processes see the same crops.

    Args:
        pairs: all at least ``patch`` on each low-resolution side.
        scale: of the pairs.
        patch: side of a low-resolution crop.
        seed: of the run.
    """

    def __init__(self, pairs: Sequence[Pair], scale: int, patch: int, seed: int) -> None:
        self.pairs, self.scale, self.patch, self.seed = pairs, scale, patch, seed
        area = np.array([pair.lr.shape[0] * pair.lr.shape[1] for pair in pairs], dtype=np.float64)
        self.cumulative = np.cumsum(area / area.sum())

    def batch(self, step: int, rows: range) -> tuple[Pixels8, Pixels8]:
        """Crops ``rows`` of step ``step``.

        Returns:
            LR ``(B, patch, patch, 3)`` and HR ``(B, patch * scale, patch * scale, 3)``, uint8.
        """
        side, big = self.patch, self.patch * self.scale
        lr = np.empty((len(rows), side, side, 3), dtype=np.uint8)
        hr = np.empty((len(rows), big, big, 3), dtype=np.uint8)
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, step]))
        draws = rng.random((rows.stop, 4))[rows.start :]
        for row, (which, down, right, turn) in enumerate(draws):
            index = int(np.searchsorted(self.cumulative, which, side="right"))
            pair = self.pairs[min(index, len(self.pairs) - 1)]
            y = int(down * (pair.lr.shape[0] - side + 1))
            x = int(right * (pair.lr.shape[1] - side + 1))
            code = int(turn * 8)
            lr[row] = _turned(pair.lr[y : y + side, x : x + side], code)
            y, x = y * self.scale, x * self.scale
            hr[row] = _turned(pair.hr[y : y + big, x : x + big], code)
        return lr, hr


def _turned(crop: Pixels8, code: int) -> Pixels8:
    """One of the eight flips and quarter turns of a square."""
    if code & 1:
        crop = crop[::-1]
    if code & 2:
        crop = crop[:, ::-1]
    return crop.swapaxes(0, 1) if code & 4 else crop
