"""A contact sheet of what the network will see: low-resolution crops beside their originals."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.files import atomic_path
from paragonsr2.training.config import TrainConfig
from paragonsr2.training.dataset import prepare

PREVIEW_FILE = "preview.png"
#: Side of an enlarged crop, about; largest width of a sheet; gap between crops. In pixels.
TILE, WIDTH, GAP = 256, 2100, 8
GREY = 128


def write_preview(config: TrainConfig, count: int, log: Callable[[str], None]) -> Path:
    """Write ``preview.png`` into ``run.output``: the first crops of the run, LR left, HR right.

    Args:
        config: of the run; nothing is trained.
        count: number of pairs.
        log: receives one line of text now and then.

    Raises:
        ParagonError: as :func:`paragonsr2.training.dataset.prepare`.
        OutputError: the file cannot be written.
    """
    # A few crops need neither all clips nor all pictures decoded at once.
    clips = min(config.degradation.cached_clips, 4 * count)
    data = config.data.model_copy(update={"storage": "files", "val_drawn": 0})
    degradation = config.degradation.model_copy(update={"cached_clips": clips})
    sampler, _ = prepare(data, degradation, config.run, config.network.scale, log=log)
    path = config.run.output / PREVIEW_FILE
    with atomic_path(path) as part:
        Image.fromarray(contact_sheet(*sampler.batch(0, range(count)))).save(part)
    return path


def contact_sheet(lr: Pixels8, hr: Pixels8) -> Pixels8:
    """Pairs in rows, LR enlarged by repeating its pixels, on grey.

    Args:
        lr: ``(N, h, w, 3)`` uint8.
        hr: ``(N, h * scale, w * scale, 3)`` uint8.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    zoom = max(1, TILE // hr.shape[1])
    scale = hr.shape[1] // lr.shape[1]
    height, width = hr.shape[1] * zoom, hr.shape[2] * zoom
    cell_height, cell_width = height + GAP, 2 * width + 2 * GAP
    columns = min(len(lr), max(1, WIDTH // cell_width))
    rows = math.ceil(len(lr) / columns)
    sheet = np.full((rows * cell_height + GAP, columns * cell_width + GAP, 3), GREY, np.uint8)
    for index, (small, large) in enumerate(zip(lr, hr, strict=True)):
        y = GAP + index // columns * cell_height
        x = GAP + index % columns * cell_width
        sheet[y : y + height, x : x + width] = _repeated(small, scale * zoom)
        sheet[y : y + height, x + width + 1 : x + 2 * width + 1] = _repeated(large, zoom)
    return sheet


def _repeated(pixels: Pixels8, times: int) -> Pixels8:
    return pixels.repeat(times, axis=0).repeat(times, axis=1)
