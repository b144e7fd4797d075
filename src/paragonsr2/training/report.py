"""``report.html``: curves and pictures of a finished run in one self-contained file."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.files import write_atomic
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.training.config import TrainConfig
from paragonsr2.training.journal import TRAINING_FILE, VALIDATION_FILE, Journal, Shown

REPORT_FILE = "report.html"
#: Largest number of points in a curve: a line of this width cannot show more.
POINTS = 400
#: A curve with at most this many points shows each of them as a dot.
DOTS = 60
WIDTH, HEIGHT, MARGIN = 460, 210, 70

#: What the curves of the records are called.
_LABELS = {
    "psnr_y": "validation PSNR-Y, dB",
    "drawn_psnr_y": "drawn pictures, PSNR-Y, dB",
    "ssim_y": "validation SSIM",
    "gate_mean": "mean of the gate map",
    "loss": "training loss",
    "steps_per_second": "steps per second",
}

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto;
       padding: 0 1rem; color: #1b1f24; background: #fff }}
h2 {{ margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d8dee4; padding-bottom: .2rem }}
dl.result {{ display: flex; flex-wrap: wrap; gap: .4rem 2.4rem; margin: 1rem 0 }}
dl.result dt {{ color: #59636e; font-size: .85rem }}
dl.result dd {{ margin: 0; font-size: 1.45rem; font-variant-numeric: tabular-nums }}
.curves {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem }}
figure {{ margin: 0 }} figcaption {{ color: #59636e }} svg {{ width: 100%; height: auto }}
.crops {{ display: grid; grid-template-columns: repeat(3, 1fr); gap: .5rem; margin-bottom: 1.2rem }}
.crops img {{ width: 100%; image-rendering: pixelated; display: block }}
table {{ border-collapse: collapse; margin: 0 0 1rem }}
th {{ text-align: left; padding: .7rem 0 .1rem }}
td {{ padding: .1rem 1.2rem .1rem 0; vertical-align: top }} td:first-child {{ color: #59636e }}
details {{ margin-top: 1rem }} pre {{ overflow-x: auto; background: #f6f8fa; padding: .8rem }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<dl class="result">{result}</dl>
<h2>Curves</h2>
<div class="curves">
{curves}
</div>
<h2>Pictures</h2>
<p>The most detailed part of each validation picture, each pixel enlarged to a square.</p>
{pictures}
<h2>Configuration</h2>
<p>What differs from the defaults.</p>
{settings}
<details><summary>Everything, as JSON</summary>
<pre>{config}</pre></details>
</html>
"""


def outcome(validation: Sequence[Mapping[str, Any]]) -> str:
    """What a run has gained, in one sentence.

    Args:
        validation: its validation records; the one of step 0 is the start.
    """
    start, best = _start_and_best(validation)
    if best is None:
        return "no validation yet"
    text = f"best validation {best['psnr_y']:.3f} dB at step {best['step']:,}"
    if start is None:
        return text
    gain = best["psnr_y"] - start["psnr_y"]
    return f"{text}, {abs(gain):.3f} dB {'above' if gain >= 0 else 'below'} the start"


def _start_and_best(
    validation: Sequence[Mapping[str, Any]],
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    start = next((record for record in validation if record["step"] == 0), None)
    trained = [record for record in validation if record["step"] > 0]
    return start, max(trained, key=lambda record: record["psnr_y"], default=None)


def write_report(
    journal: Journal, config: TrainConfig, network: ParagonSR2, shown: Iterable[Shown]
) -> Path:
    """Write ``report.html`` into the run's folder.

    Args:
        journal: the run's records.
        config: the run's configuration.
        network: the trained network.
        shown: crops of validation pictures.

    Returns:
        Path of the report.

    Raises:
        OutputError: the file cannot be written.
    """
    training, validation = journal.read(TRAINING_FILE), journal.read(VALIDATION_FILE)
    parameters = sum(p.numel() for p in network.collapse().parameters())
    settings = config.model_dump(mode="json", exclude_defaults=True)
    page = _PAGE.format(
        title=html.escape(f"{config.network.variant} x{config.network.scale}"),
        summary=(
            f"{config.schedule.steps:,} steps of {config.data.batch} crops; {parameters:,} "
            "parameters when deployed."
        ),
        result=_result(validation),
        curves="\n".join(_curves(training, validation, gated=network.gate is not None)),
        pictures="\n".join(_picture(crop) for crop in shown),
        settings="\n".join(_settings(name, values) for name, values in settings.items()),
        config=html.escape(config.model_dump_json(indent=2, exclude_none=True)),
    )
    path = journal.folder / REPORT_FILE
    write_atomic(path, page.encode())
    return path


def _result(validation: Sequence[Mapping[str, Any]]) -> str:
    """Start, best and gain as terms of a list."""
    start, best = _start_and_best(validation)
    facts: dict[str, str] = {}
    if start is not None:
        facts["before training"] = f"{start['psnr_y']:.3f} dB"
    if best is not None:
        facts[f"best, at step {best['step']:,}"] = f"{best['psnr_y']:.3f} dB"
        if start is not None:
            facts["gained"] = f"{best['psnr_y'] - start['psnr_y']:+.3f} dB"
        facts["SSIM of the best"] = f"{best['ssim_y']:.4f}"
        if "drawn_psnr_y" in best:
            facts["drawn pictures"] = f"{best['drawn_psnr_y']:.3f} dB"
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())


def _curves(
    training: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]], *, gated: bool
) -> list[str]:
    names = ["psnr_y", "drawn_psnr_y", "ssim_y", *(["gate_mean"] if gated else [])]
    terms = {name: None for record in training for name in record if name != "step"}
    curves = [_curve(validation, name) for name in names]
    return [curve for curve in [*curves, *(_curve(training, name) for name in terms)] if curve]


def _curve(records: Sequence[Mapping[str, Any]], name: str) -> str:
    """An SVG line of ``name`` over the steps, with a dot per record where they are few."""
    points = [(record["step"], record[name]) for record in records if name in record]
    if not points:
        return ""
    kept = points[:: max(1, len(points) // POINTS)]
    points = kept if kept[-1] == points[-1] else [*kept, points[-1]]
    values = [value for _, value in points]
    low, high = min(values), max(values)
    span, last = (high - low) or 1.0, max(points[-1][0], 1)
    bottom, right = HEIGHT - 28, WIDTH - 12

    def place(step: float, value: float) -> tuple[float, float]:
        x = MARGIN + (right - MARGIN) * step / last
        return x, 12 + (bottom - 20) * (high - value) / span

    places = [place(*point) for point in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
    label = html.escape(_LABELS.get(name, f"loss term {name}"))
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" fill="#59636e" role="img" '
        f'aria-label="{label}">'
        f'<path d="M{MARGIN},8V{bottom}H{right}" fill="none" stroke="#d8dee4"/>'
        f'<text x="{MARGIN - 6}" y="16" text-anchor="end">{high:.5g}</text>'
        f'<text x="{MARGIN - 6}" y="{bottom - 4}" text-anchor="end">{low:.5g}</text>'
        f'<text x="{MARGIN}" y="{HEIGHT - 8}">0</text>'
        f'<text x="{right}" y="{HEIGHT - 8}" text-anchor="end">step {last:,}</text>'
        f'<polyline points="{line}" fill="none" stroke="#0969da" stroke-width="1.8"/>'
        f'<g fill="#0969da">{dots if len(places) <= DOTS else ""}</g></svg>'
        f"<figcaption>{label}; last {points[-1][1]:.5g}</figcaption></figure>"
    )


def _picture(crop: Shown) -> str:
    name = html.escape(crop.name)
    kinds = (("low resolution", crop.plain), ("result", crop.sr), ("original", crop.hr))
    images = "".join(
        f'<figure><img src="data:image/png;base64,{_png(pixels)}" alt="{kind} of {name}">'
        f"<figcaption>{kind}</figcaption></figure>"
        for kind, pixels in kinds
    )
    return f'<h3>{name}</h3><div class="crops">{images}</div>'


def _settings(section: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{html.escape(_plain(value))}</td></tr>"
        for key, value in values.items()
    )
    return f'<table><tr><th colspan="2">{html.escape(section)}</th></tr>{rows}</table>'


def _plain(value: Any) -> str:
    """A value as people write it: ``weight 0.1, start 4``; lists one after the other."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items()) or "on"
    if isinstance(value, list):
        between = "; " if any(isinstance(inner, dict) for inner in value) else ", "
        return between.join(_plain(inner) for inner in value)
    return value if isinstance(value, str) else json.dumps(value)


def _png(pixels: Pixels8) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
