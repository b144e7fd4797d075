"""``paragonsr2 upscale``."""

from __future__ import annotations

import enum
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paragonsr2.cli.options import (
    BackendChoice,
    BackendOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    PrecisionChoice,
    PrecisionOption,
    ScaleOption,
)
from paragonsr2.cli.progress import Events, ProgressLine
from paragonsr2.errors import UsageError

if TYPE_CHECKING:
    from paragonsr2.upscale.line import Outcome, Task
    from paragonsr2.upscale.upscaler import TileOption, Upscaler


class CodecChoice(enum.StrEnum):
    """Video codecs."""

    keep = "keep"
    h264 = "h264"
    hevc = "hevc"
    av1 = "av1"
    ffv1 = "ffv1"
    prores = "prores"


class TemporalChoice(enum.StrEnum):
    """Whether video is steadied."""

    auto = "auto"
    on = "on"
    off = "off"


class FormatChoice(enum.StrEnum):
    """Output formats."""

    keep = "keep"
    png = "png"
    jpg = "jpg"
    webp = "webp"
    tiff = "tiff"
    avif = "avif"
    gif = "gif"
    jxl = "jxl"


def upscale(
    inputs: Annotated[
        list[str], typer.Argument(help="Images, videos, folders (recursive), globs.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File or folder; default: beside input.")
    ] = None,
    model: ModelOption = "realtime",
    scale: ScaleOption = None,
    backend: BackendOption = BackendChoice.auto,
    device: DeviceOption = "auto",
    precision: PrecisionOption = PrecisionChoice.auto,
    tile: Annotated[str, typer.Option(help="auto, off, or a side in input pixels.")] = "auto",
    image_format: Annotated[
        FormatChoice, typer.Option("--format", help="Output format of images.")
    ] = FormatChoice.keep,
    quality: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            help="Of lossy formats: 95 for images (100: lossless where it can), 64 for clips.",
        ),
    ] = None,
    suffix: Annotated[
        str | None, typer.Option(help="Behind the names; default: _x2 beside the input.")
    ] = None,
    codec: Annotated[
        CodecChoice, typer.Option(help="Video codec; keep takes the clip's own if it can.")
    ] = CodecChoice.keep,
    preset: Annotated[
        str | None, typer.Option(help="Of the video encoder: medium, slow...; 0..13 for av1.")
    ] = None,
    segment: Annotated[
        int | None, typer.Option(help="Frames after which an interrupted video can go on.")
    ] = None,
    temporal: Annotated[
        TemporalChoice,
        typer.Option(help="Steady video against flicker; auto: if OpenCV is installed."),
    ] = TemporalChoice.auto,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results newer than their input, too.")
    ] = False,
    max_megapixels: Annotated[
        float, typer.Option(help="Refuse larger inputs: a small file can claim any size.")
    ] = 250.0,
    as_json: JsonOption = False,
    as_events: Annotated[
        bool, typer.Option("--events", help="Print JSON objects on stdout, one a line, as it goes.")
    ] = False,
) -> None:
    """Enlarge images and videos; a result that is newer than its input is kept.

    An interrupted video goes on where it was when the same command is given again.
    """
    from paragonsr2.upscale.job import check_output_folder, plan_tasks, run_tasks
    from paragonsr2.upscale.temporal import Steadier
    from paragonsr2.upscale.upscaler import Upscaler
    from paragonsr2.upscale.video import SEGMENT_FRAMES, VideoOptions

    upscaler = Upscaler(
        model,
        scale,
        backend=backend.value,
        device=device,
        precision=precision.value,
        tile=_tile(tile),
    )
    if temporal is TemporalChoice.on:
        Steadier(upscaler.scale)  # or say now what is missing, not at each clip
    max_pixels = int(max_megapixels * 1e6)
    video = VideoOptions(
        codec=None if codec is CodecChoice.keep else codec.value,
        quality=quality,
        preset=preset,
        segment=SEGMENT_FRAMES if segment is None else segment,
        temporal=temporal.value,
        max_pixels=max_pixels,
    )
    tasks = plan_tasks(inputs, output, upscaler.scale, image_format.value, suffix)
    check_output_folder(output)
    about = _describe(upscaler)
    events = Events(wanted=as_events)
    events.send("start", {**about, "files": len(tasks)})
    started = time.perf_counter()
    outcomes: list[Outcome] = []

    def show(task: Task, share: float, frames: int) -> None:
        line.show(task.source.name, len(outcomes) + share, frames)
        events.progress(
            {
                "input": str(task.source),
                "share": round(share, 4),
                "frames": frames,
                "finished": len(outcomes),
            }
        )

    with ProgressLine(len(tasks), "files", f"{about['backend']}, tile {about['tile']}") as line:
        for outcome in run_tasks(
            tasks,
            upscaler,
            overwrite=overwrite,
            max_pixels=max_pixels,
            quality=quality,
            video=video,
            progress=show,
        ):
            outcomes.append(outcome)
            line.show(outcome.source.name, len(outcomes))
            events.send("result", _report(outcome))
            if outcome.status == "done" and not (as_json or as_events):
                print(outcome.target, flush=True)
            if outcome.message:
                print(f"{outcome.source}: {outcome.status}: {outcome.message}", file=sys.stderr)
    count = Counter(outcome.status for outcome in outcomes)
    summary = {
        **about,
        "seconds": round(time.perf_counter() - started, 4),
        **{status: count[status] for status in ("done", "skipped", "failed")},
    }
    events.send("end", summary)
    if as_json:
        print(json.dumps({**summary, "results": [_report(outcome) for outcome in outcomes]}))
    elif not as_events:
        _summarise(summary)
    if count["failed"]:
        raise typer.Exit(1)


def _tile(text: str) -> TileOption:
    if text in ("auto", "off"):
        return text
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--tile {text}: give auto, off or a number from 16") from None


def _describe(upscaler: Upscaler) -> dict[str, object]:
    return {
        "model": upscaler.model,
        "scale": upscaler.scale,
        "backend": upscaler.backend.name,
        "tile": upscaler.tile or "off",
    }


def _report(outcome: Outcome) -> dict[str, object]:
    return {
        "input": str(outcome.source),
        "output": str(outcome.target),
        "status": outcome.status,
        "message": outcome.message,
        "width": outcome.width,
        "height": outcome.height,
        "pages": outcome.pages,
        "frames": outcome.frames,
        "seconds": round(outcome.seconds, 4),
    }


def _summarise(summary: dict[str, object]) -> None:
    parts = [f"{summary[key]} {key}" for key in ("done", "skipped", "failed") if summary[key]]
    print(
        f"{', '.join(parts)} in {summary['seconds']:.1f} s  "
        f"({summary['model']} x{summary['scale']}, {summary['backend']}, tile {summary['tile']})",
        file=sys.stderr,
    )
