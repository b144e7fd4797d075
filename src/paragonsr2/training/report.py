"""``report.html``: curves and pictures of a finished run in one file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.files import write_atomic
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.training.config import TrainConfig
from paragonsr2.training.journal import TRAINING_FILE, VALIDATION_FILE, Journal, Shown

REPORT_FILE = "report.html"
#: Points of a curve, at most: a line of a million steps has no more to show.
POINTS = 400
WIDTH, HEIGHT, MARGIN = 420, 180, 44

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }}
figure {{ display: inline-block; margin: 0 1rem 1.5rem 0; vertical-align: top }}
figcaption {{ color: #555 }} svg {{ display: block }} pre {{ overflow-x: auto; background: #f4f4f4;
padding: .8rem }} img {{ image-rendering: pixelated; max-width: 100% }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<h2>Curves</h2>
{curves}
<h2>Pictures</h2>
<p>Low resolution, result and original; where each picture is most detailed.</p>
{pictures}
<h2>Configuration</h2>
<pre>{config}</pre>
</html>
"""


def write_report(
    journal: Journal, config: TrainConfig, network: ParagonSR2, shown: Iterable[Shown]
) -> None:
    """Write ``report.html`` into the run's folder.

    Args:
        journal: the run's records.
        config: the run's configuration.
        network: the trained network.
        shown: crops of validation pictures.

    Raises:
        OutputError: the file cannot be written.
    """
    training, validation = journal.read(TRAINING_FILE), journal.read(VALIDATION_FILE)
    best = max(validation, key=lambda record: record["psnr_y"])
    parameters = sum(p.numel() for p in network.collapse().parameters())
    summary = (
        f"{config.schedule.steps:,} steps of {config.data.batch} crops; best validation "
        f"{best['psnr_y']:.3f} dB (SSIM {best['ssim_y']:.4f}) at step {best['step']:,}; "
        f"{parameters:,} deployed parameters."
    )
    curves = [_curve(validation, "psnr_y", "validation PSNR-Y, dB")]
    if network.gate is not None:
        curves.append(_curve(validation, "gate_mean", "mean of the gate map"))
    names = {name: None for record in training for name in record}
    curves += [_curve(training, name, name) for name in names if name != "step"]
    page = _PAGE.format(
        title=html.escape(f"{config.network.variant} x{config.network.scale}"),
        summary=summary,
        curves="\n".join(curves),
        pictures="\n".join(_picture(crop) for crop in shown),
        config=html.escape(config.model_dump_json(indent=2, exclude_none=True)),
    )
    write_atomic(journal.folder / REPORT_FILE, page.encode())


def _curve(records: Sequence[dict[str, Any]], name: str, label: str) -> str:
    """An SVG line of ``name`` over the steps."""
    points = [(record["step"], record[name]) for record in records if name in record]
    points = points[:: max(1, len(points) // POINTS)]
    if not points:
        return ""
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    span, last = (high - low) or 1.0, max(steps)

    def place(step: float, value: float) -> str:
        x = MARGIN + (WIDTH - MARGIN - 8) * step / last
        y = 8 + (HEIGHT - 32) * (high - value) / span
        return f"{x:.1f},{y:.1f}"

    line = " ".join(place(*point) for point in points)
    bottom = HEIGHT - 24
    return (
        f'<figure><svg width="{WIDTH}" height="{HEIGHT}" font-size="11" fill="#555">'
        f'<path d="M{MARGIN},8V{bottom}H{WIDTH - 8}" fill="none" stroke="#bbb"/>'
        f'<text x="{MARGIN - 4}" y="14" text-anchor="end">{high:.4g}</text>'
        f'<text x="{MARGIN - 4}" y="{bottom}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{MARGIN}" y="{HEIGHT - 8}">0</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 8}" text-anchor="end">{last:,}</text>'
        f'<polyline points="{line}" fill="none" stroke="#1668b8" stroke-width="1.5"/></svg>'
        f"<figcaption>{html.escape(label)}</figcaption></figure>"
    )


def _picture(crop: Shown) -> str:
    name = html.escape(crop.name)
    kinds = (("low resolution", crop.plain), ("result", crop.sr), ("original", crop.hr))
    images = " ".join(
        f'<img src="data:image/png;base64,{_png(pixels)}" alt="{kind} of {name}">'
        for kind, pixels in kinds
    )
    return f"<figure>{images}<figcaption>{name}</figcaption></figure>"


def _png(pixels: Pixels8) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
