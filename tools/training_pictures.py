"""Draw the images of docs/training.md.

::

    python tools/training_pictures.py               # previews of degradations, and curves
    python tools/training_pictures.py --munet CONFIG [section.key=value]...

The second form shows where the discriminator of a run looks; give it the overrides of the run.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from labels import labelled
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from paragonsr2.arrays.convert import to_float, to_pixels
from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.files import write_atomic
from paragonsr2.measure.machine import write_result
from paragonsr2.measure.quality import crop_to_multiple, shrink
from paragonsr2.training.config_file import load_config
from paragonsr2.training.journal import liveliest
from paragonsr2.training.loop import Trainer
from paragonsr2.training.pictures import decode, list_images
from paragonsr2.training.preview import write_preview

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
LOOKS = ROOT / "results" / "perceptual" / "munet_looks.json"
CURVES = ROOT / "results" / "training" / "curves.json"
#: By image: configuration, overrides and number of pairs.
PREVIEWS = {
    "preview_codec": ("stream_x2_compressed", [], 10),
    "preview_blind": ("photo_x2_perceptual", ["degradation.kind=blind"], 6),
}
#: Overrides that name folders, which the result file must not contain.
PLACES = ("data.train", "data.val", "data.cache", "run.")
#: Number of images on which the discriminator is shown.
SHOWN = 2


def previews() -> None:
    """Draw what ``train --preview`` writes, smaller."""
    for name, (config, overrides, count) in PREVIEWS.items():
        with tempfile.TemporaryDirectory() as folder:
            where = [*overrides, f"run.output={folder}", f"data.cache={folder}/cache"]
            settings = load_config(ROOT / "configs" / f"{config}.toml", where)
            with Image.open(write_preview(settings, count, print)) as sheet:
                save(name, np.asarray(sheet))


def save(name: str, pixels: Pixels8) -> None:
    """Write an image of the docs as WebP."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "webp", quality=80, method=6)
    write_atomic(IMAGES / f"{name}.webp", file.getvalue())
    print(IMAGES / f"{name}.webp")


def curves() -> None:
    """Draw loss and validation of every run in the result file."""
    runs: dict[str, dict[str, Any]] = json.loads(CURVES.read_text(encoding="utf-8"))
    columns = 3
    rows = -(-len(runs) // columns)
    figure = Figure(figsize=(4 * columns, 2.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, run) in enumerate(runs.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        steps, losses = zip(*run["loss"], strict=True)
        axes.plot(steps, losses, color="#94a3b8", linewidth=1)
        axes.set_title(name, fontsize=9)
        # The loss of a single bad step can be a million times that of all others.
        axes.set_ylim(0.95 * min(losses), 1.25 * float(np.quantile(losses, 0.97)))
        axes.set_ylabel("loss", fontsize=8, color="#475569")
        right = axes.twinx()
        records = run["validation"]
        right.plot(
            [record["step"] for record in records], [record["psnr_y"] for record in records],
            color="#c2410c", marker="o", markersize=3, linewidth=1.2,
        )  # fmt: skip
        right.set_ylabel("validation PSNR-Y, dB", fontsize=8, color="#c2410c")
        for one in (axes, right):
            one.tick_params(labelsize=7)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90, metadata={"Software": None})
    write_atomic(IMAGES / "training_curves.png", file.getvalue())
    print(IMAGES / "training_curves.png")


def munet(config: Path, overrides: list[str]) -> None:
    """Draw results of a run beside MUNet's logits and the share of each branch.

    The mean shares go into a result file.

    Raises:
        SystemExit: the run has no discriminator.
    """
    trainer = Trainer(load_config(config, overrides), resume=True)
    if trainer.opponent is None:
        sys.exit(f"{config} trains without a discriminator")
    judge, scale = trainer.opponent.network.eval(), trainer.network.scale
    rows: list[Pixels8] = []
    shares: list[np.ndarray] = []
    for path in list_images(trainer.config.data.val.path)[:SHOWN]:
        hr = crop_to_multiple(decode(path.read_bytes()), scale)
        hr = hr[liveliest(hr, scale)]
        with torch.no_grad(), trainer.ema.applied(trainer.network) as network:
            sr = network(torch.from_numpy(to_float(shrink(hr, scale))))
            judged = judge.inspect(sr)
        tiles = [labelled("result", to_pixels(sr.numpy(), hr).astype(np.uint8))]
        shares.append(judged.fusion[0].numpy().mean(axis=(1, 2)))
        maps = {"logit": judged.logits[0, 0].numpy()}
        maps |= zip(judge.branches, judged.fusion[0].numpy(), strict=True)
        for name, values in maps.items():
            tiles.append(labelled(f"{name}, mean {values.mean():.2f}", grey(stretched(values))))
        rows.append(np.hstack(tiles))
    save("munet_looks", np.vstack(rows))
    mean = np.mean(shares, axis=0)
    result = {
        "what": "mean share of each branch in MUNet's judgement of generated crops",
        "configuration": config.name,
        "overrides": [option for option in overrides if not option.startswith(PLACES)],
        "steps": trainer.step,
        "crops": len(rows),
        "share": {
            name: round(float(share), 4) for name, share in zip(judge.branches, mean, strict=True)
        },
    }
    write_result(LOOKS, result)


def stretched(x: np.ndarray) -> np.ndarray:
    """Stretch to 0..1; the border, which shows the padding, does not affect the range."""
    low, high = np.quantile(x[8:-8, 8:-8], (0.01, 0.99))
    return (x - low) / max(float(high - low), 1e-6)


def grey(x: np.ndarray) -> Pixels8:
    """Convert ``(H, W)`` in 0..1 to grey ``(H, W, 3)`` uint8."""
    return (255 * x.clip(0, 1)).round().astype(np.uint8)[..., None].repeat(3, axis=2)


def main() -> None:
    """Draw the requested images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--munet", nargs="+", metavar="CONFIG")
    options = parser.parse_args()
    if options.munet:
        config, *overrides = options.munet
        munet(Path(config), overrides)
    else:
        previews()
        curves()


if __name__ == "__main__":
    main()
