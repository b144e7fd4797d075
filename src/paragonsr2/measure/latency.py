"""Latency of models in engines: what is timed, the rows that come out, and their tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.errors import EnvironmentProblem, UsageError
from paragonsr2.measure.memory import PeakMemory
from paragonsr2.measure.speed import noise_inputs, time_side_by_side

Run = Callable[[FloatNCHW], object]


@dataclass(frozen=True)
class Resolution:
    """Size of an input image, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


#: What players and games upscale: 1080p, 720p and 540p, which x2 turns into 4K, 1440p and 1080p.
RESOLUTIONS = (Resolution(1920, 1080), Resolution(1280, 720), Resolution(960, 540))


@dataclass(frozen=True)
class Candidate:
    """A model and the engine to time it in, not opened yet.

    Attributes:
        model: name to show.
        backend: engine, device and mode, to show.
        precision: fp32, fp16 or bf16.
        scale: upscaling factor.
        open: opens the model and returns a function that runs it on one input and returns when
            the work is done. Raises :class:`EnvironmentProblem` if this machine cannot run it.
        cuda: measure the memory of the CUDA device instead of the process.
    """

    model: str
    backend: str
    precision: str
    scale: int
    open: Callable[[], Run]
    cuda: bool = False


@dataclass(frozen=True)
class Row:
    """One candidate at one resolution.

    Attributes:
        model: name.
        backend: engine, device and mode.
        precision: number format.
        input: width and height in pixels.
        output: width and height in pixels.
        median: seconds per call.
        p95: seconds; 95 % of the calls were faster.
        calls: number of timed calls.
        fps: calls per second at the median.
        memory_mib: peak memory added by opening the model and the first call, in MiB: resident
            memory of the process, or memory of the CUDA device. None if it cannot be measured.
        speed_up: relative to the first row of this resolution.
    """

    model: str
    backend: str
    precision: str
    input: tuple[int, int]
    output: tuple[int, int]
    median: float
    p95: float
    calls: int
    fps: float
    memory_mib: float | None
    speed_up: float


@dataclass(frozen=True)
class Absent:
    """A candidate that could not be timed, and the reason."""

    model: str
    backend: str
    precision: str
    reason: str


def parse_resolution(text: str) -> Resolution:
    """Read ``WIDTHxHEIGHT``, such as ``1280x720``.

    Raises:
        UsageError: ``text`` has another form, or a side is outside 1..16384.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if match is None or not all(1 <= int(side) <= 16384 for side in match.groups()):
        raise UsageError(
            f"'{text}' is not a resolution; write WIDTHxHEIGHT in pixels, such as 1280x720"
        )
    return Resolution(int(match[1]), int(match[2]))


def measure_resolution(
    candidates: Sequence[Candidate],
    resolution: Resolution,
    *,
    calls: int,
    warmup: int,
    progress: Callable[[str], None],
) -> tuple[list[Row], list[Absent]]:
    """Time every candidate that this machine can run, taking turns on the same noise inputs.

    Args:
        candidates: the first one that runs is the reference for ``speed_up``.
        resolution: of the input.
        calls: timed calls per candidate.
        warmup: untimed calls before them, in addition to the one during which memory is measured.
        progress: receives a line before each step.

    Returns:
        Rows in the order of ``candidates``, and the candidates that could not be timed.
    """
    opened, absent = _open(candidates, resolution, progress)
    progress(f"{resolution}: timing {len(opened)} candidates, {calls} calls each")
    timings = time_side_by_side(
        {str(index): run for index, (run, _) in opened.items()},
        resolution.height,
        resolution.width,
        calls=calls,
        warmup=warmup,
        progress=progress,
    )
    rows: list[Row] = []
    for index, (_, memory) in opened.items():
        one, timing = candidates[index], timings[str(index)]
        first = rows[0].median if rows else timing.median
        width, height = resolution.width, resolution.height
        rows.append(
            Row(
                model=one.model,
                backend=one.backend,
                precision=one.precision,
                input=(width, height),
                output=(width * one.scale, height * one.scale),
                median=timing.median,
                p95=timing.p95,
                calls=timing.calls,
                fps=1.0 / timing.median,
                memory_mib=None if memory is None else memory / 2**20,
                speed_up=first / timing.median,
            )
        )
    return rows, absent


def _open(
    candidates: Sequence[Candidate], resolution: Resolution, progress: Callable[[str], None]
) -> tuple[dict[int, tuple[Run, int | None]], list[Absent]]:
    """Open and warm up each candidate; by index, how to run it and its peak memory in bytes."""
    opened: dict[int, tuple[Run, int | None]] = {}
    absent: list[Absent] = []
    x = noise_inputs(resolution.height, resolution.width, count=1)[0]
    for index, one in enumerate(candidates):
        progress(f"{resolution}: opening {one.model} in {one.backend} {one.precision}")
        try:
            with PeakMemory(cuda=one.cuda) as peak:
                run = one.open()
                run(x)
        except EnvironmentProblem as error:
            absent.append(Absent(one.model, one.backend, one.precision, str(error)))
        else:
            opened[index] = (run, peak.bytes)
    return opened, absent


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table; the first line is its header."""
    head, *body = lines
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body)) + "\n"


def rows_table(rows: Sequence[Row]) -> str:
    """Format the measured rows as a Markdown table."""
    head = ["model", "backend", "precision", "input", "output", "median, ms", "p95, ms", "FPS",
            "peak memory, MiB", "speed-up"]  # fmt: skip
    lines = [
        [
            row.model, row.backend, row.precision, f"{row.input[0]}x{row.input[1]}",
            f"{row.output[0]}x{row.output[1]}", f"{row.median * 1e3:.1f}", f"{row.p95 * 1e3:.1f}",
            f"{row.fps:.2f}", "unknown" if row.memory_mib is None else f"{row.memory_mib:.0f}",
            f"{row.speed_up:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    return markdown([head, *lines])


def absent_table(absent: Sequence[Absent]) -> str:
    """Format the candidates that could not be timed as a Markdown table."""
    lines = [[one.model, one.backend, one.precision, one.reason] for one in absent]
    return markdown([["model", "backend", "precision", "absent because"], *lines])
