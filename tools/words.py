"""Draw what each word of ``--for`` does: ``docs/images/words.webp``, for the README.

    python tools/words.py

One row a word, and one for a JPEG without a word, from pictures that come with the repository or
are drawn by code: enlarged by bicubic, by the faithful model of the same variant, and by the model
that is taken.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from labels import labelled
from PIL import Image

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.measure.quality import shrink
from paragonsr2.training.drawn import draw_picture
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.purposes import available, model_for, suited

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "images" / "words.webp"
SCALE, SIDE = 2, 140
QUALITY = 25


def houses(y: int, x: int) -> Pixels8:
    """A part of the example photograph, shrunk."""
    with Image.open(ROOT / "examples" / "houses.png") as image:
        whole = np.asarray(image.convert("RGB"))
    return shrink(whole[y : y + 2 * SIDE, x : x + 2 * SIDE], SCALE)


def stored(pixels: Pixels8) -> Pixels8:
    """The same from a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=QUALITY)
    with Image.open(buffer) as image:
        return np.asarray(image)


#: What is shown by word; the empty one is for no word.
ROWS: dict[str, tuple[str, Callable[[], Pixels8]]] = {
    "": (f"a JPEG of quality {QUALITY}", lambda: stored(houses(40, 80))),
    "crisp": ("a clean photograph", lambda: houses(180, 460)),
    "restore": (f"a JPEG of quality {QUALITY}", lambda: stored(houses(180, 460))),
    "drawing": (
        f"a drawing, JPEG of quality {QUALITY}",
        lambda: stored(shrink(draw_picture(1, 20_000)[: 2 * SIDE, : 2 * SIDE], SCALE)),
    ),
}


def main() -> None:
    """Write the picture."""
    rows: list[np.ndarray] = []
    for word, (what, make) in ROWS.items():
        if word and SCALE not in available().get(word, []):
            continue
        lr = make()
        model = model_for(word, SCALE) if word else suited(SCALE, quality=QUALITY)
        variant = model.partition(":")[0]
        tiles: list[np.ndarray] = []
        for name, label in (
            ("bicubic", f"{what}: bicubic"),
            (variant, f"faithful ({variant})"),
            (model, f"{word or 'no flag'} ({model})"),
        ):
            tiles.append(labelled(label, Upscaler(name, SCALE)(lr)))
        rows.append(np.hstack(tiles))
    Image.fromarray(np.vstack(rows)).save(TARGET, quality=92)
    print(TARGET)


if __name__ == "__main__":
    main()
