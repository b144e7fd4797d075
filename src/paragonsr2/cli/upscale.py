"""``paragonsr2 upscale``."""

from __future__ import annotations

import enum
import json
import sys
import time
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
from paragonsr2.errors import UsageError

if TYPE_CHECKING:
    from paragonsr2.upscale.job import Outcome, Task
    from paragonsr2.upscale.upscaler import TileOption, Upscaler


class FormatChoice(enum.StrEnum):
    """Output formats."""

    keep = "keep"
    png = "png"
    jpg = "jpg"
    webp = "webp"
    tiff = "tiff"
    avif = "avif"


def upscale(
    inputs: Annotated[list[str], typer.Argument(help="Images, folders (recursive), globs.")],
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
        FormatChoice, typer.Option("--format", help="Output format.")
    ] = FormatChoice.keep,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results.")] = False,
    max_megapixels: Annotated[
        float, typer.Option(help="Refuse larger inputs: a small file can claim any size.")
    ] = 250.0,
    as_json: JsonOption = False,
) -> None:
    """Enlarge images; what exists already is skipped."""
    from paragonsr2.upscale.job import check_output_folder, plan_tasks, run_task
    from paragonsr2.upscale.upscaler import Upscaler

    upscaler = Upscaler(
        model,
        scale,
        backend=backend.value,
        device=device,
        precision=precision.value,
        tile=_tile(tile),
    )
    tasks = plan_tasks(inputs, output, upscaler.scale, image_format.value)
    check_output_folder(output)
    started = time.perf_counter()
    outcomes: list[Outcome] = []
    with _Progress(tasks) as progress:
        for task in tasks:
            progress.begin(task)
            outcome = run_task(
                task,
                upscaler,
                overwrite=overwrite,
                max_pixels=int(max_megapixels * 1e6),
                progress=progress.advance,
            )
            outcomes.append(outcome)
            progress.end()
            if outcome.status == "done" and not as_json:
                print(outcome.target, flush=True)
            elif outcome.status != "done":
                print(f"{outcome.source}: {outcome.status}: {outcome.message}", file=sys.stderr)
    _summarise(outcomes, upscaler, time.perf_counter() - started, as_json)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _tile(text: str) -> TileOption:
    if text in ("auto", "off"):
        return text
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--tile {text}: give auto, off or a number from 16") from None


def _summarise(outcomes: list[Outcome], upscaler: Upscaler, seconds: float, as_json: bool) -> None:
    count = {
        status: sum(outcome.status == status for outcome in outcomes)
        for status in ("done", "skipped", "failed")
    }
    if as_json:
        results = [
            {
                "input": str(outcome.source),
                "output": str(outcome.target),
                "status": outcome.status,
                "message": outcome.message,
                "width": outcome.width,
                "height": outcome.height,
                "seconds": round(outcome.seconds, 4),
            }
            for outcome in outcomes
        ]
        whole = {
            "model": upscaler.model,
            "scale": upscaler.scale,
            "backend": upscaler.backend.name,
            "tile": upscaler.tile or "off",
            "seconds": round(seconds, 4),
            **count,
            "results": results,
        }
        print(json.dumps(whole))
        return
    parts = [f"{number} {status}" for status, number in count.items() if number]
    print(
        f"{', '.join(parts)} in {seconds:.1f} s  "
        f"({upscaler.model} x{upscaler.scale}, {upscaler.backend.name}, "
        f"tile {upscaler.tile or 'off'})",
        file=sys.stderr,
    )


class _Progress:
    """A progress bar on stderr, or nothing where stderr is no terminal."""

    def __init__(self, tasks: list[Task]) -> None:
        self.total = len(tasks)
        self.bar = None
        self.done = 0
        self.shown = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self.bar = Progress(console=Console(stderr=True), transient=True)
            self.bar.start()
            self.shown = self.bar.add_task("", total=self.total)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, task: Task) -> None:
        if self.bar is not None and self.shown is not None:
            self.bar.update(self.shown, description=task.source.name)

    def advance(self, share: float) -> None:
        if self.bar is not None and self.shown is not None:
            self.bar.update(self.shown, completed=self.done + share)

    def end(self) -> None:
        self.done += 1
        self.advance(0.0)
