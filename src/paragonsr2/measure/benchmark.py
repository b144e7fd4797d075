"""The benchmark: models in engines at several sizes, and beside other people's networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.errors import EnvironmentProblem, UsageError
from paragonsr2.files import write_atomic
from paragonsr2.measure.memory import PeakMemory
from paragonsr2.measure.quality import decibel
from paragonsr2.measure.speed import noise_inputs, time_side_by_side

Run = Callable[[FloatNCHW], object]


@dataclass(frozen=True)
class Size:
    """Of an input, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


#: What players and games enlarge: 1080p, 720p and 540p, at x2 to 4K, 1440p and 1080p.
SIZES = (Size(1920, 1080), Size(1280, 720), Size(960, 540))


@dataclass(frozen=True)
class Candidate:
    """A model in an engine, not opened yet.

    Attributes:
        model: name for people.
        backend: engine and how it is used.
        precision: fp32, fp16 or bf16.
        scale: enlargement; 0 where it is not known before it is opened.
        open: makes what to call with an input, which returns when the work is done; raises
            :class:`EnvironmentProblem` where this machine cannot.
        cuda: memory is that of the CUDA device.
    """

    model: str
    backend: str
    precision: str
    scale: int
    open: Callable[[], Run]
    cuda: bool = False


@dataclass(frozen=True)
class Row:
    """One candidate at one size.

    Attributes:
        model: name.
        backend: engine and how it is used.
        precision: number format.
        input: width and height in pixels.
        output: likewise.
        median: seconds of a call.
        p95: seconds; 95 % of the calls were faster.
        calls: how many were timed.
        fps: calls a second, by the median.
        memory_mib: peak of opening and the first call, above what was taken before: resident
            memory of the process, or of the CUDA device; None if the system does not tell.
        speed_up: against the first row of this size.
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
    """A candidate that could not be timed, and why."""

    model: str
    backend: str
    precision: str
    reason: str


@dataclass(frozen=True)
class Placed:
    """A network on the plot of quality against latency.

    Attributes:
        name: of the network.
        median: seconds of a call.
        set5: PSNR-Y in decibel; None if not known.
        set14: likewise.
        ours: whether it is one of this package.
    """

    name: str
    median: float
    set5: float | None
    set14: float | None
    ours: bool = False


def parse_size(text: str) -> Size:
    """``1280x720`` as width and height.

    Raises:
        UsageError: it is written otherwise, or a side is not in 1..16384.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if match is None or not all(1 <= int(side) <= 16384 for side in match.groups()):
        raise UsageError(f"'{text}' is no size; write WIDTHxHEIGHT in pixels, such as 1280x720")
    return Size(int(match[1]), int(match[2]))


def measure_size(
    candidates: Sequence[Candidate],
    size: Size,
    *,
    calls: int,
    warmup: int,
    progress: Callable[[str], None],
) -> tuple[list[Row], list[Absent]]:
    """Time every candidate that this machine can open, in turns, on the same inputs of noise.

    Args:
        candidates: those named first are the base of the speed-up.
        size: of the input.
        calls: timed calls of each.
        warmup: calls of each before that, besides the one that memory is watched during.
        progress: told what is being done.

    Returns:
        Rows in the order of ``candidates``, and those that are absent with the reason.
    """
    opened: dict[int, tuple[Run, int | None]] = {}
    absent: list[Absent] = []
    x = noise_inputs(size.height, size.width, count=1)[0]
    for index, one in enumerate(candidates):
        progress(f"{size}: opening {one.model} in {one.backend} {one.precision}")
        try:
            with PeakMemory(cuda=one.cuda) as peak:
                run = one.open()
                run(x)
        except EnvironmentProblem as error:
            absent.append(Absent(one.model, one.backend, one.precision, str(error)))
        else:
            opened[index] = (run, peak.bytes)
    progress(f"{size}: timing {len(opened)} candidates, {calls} calls of each")
    timings = time_side_by_side(
        {str(index): run for index, (run, _) in opened.items()},
        size.height,
        size.width,
        calls=calls,
        warmup=warmup,
        progress=progress,
    )
    rows: list[Row] = []
    for index, (_, memory) in opened.items():
        one, timing = candidates[index], timings[str(index)]
        first = rows[0].median if rows else timing.median
        rows.append(
            Row(
                one.model, one.backend, one.precision, (size.width, size.height),
                (size.width * one.scale, size.height * one.scale), timing.median, timing.p95,
                timing.calls, 1.0 / timing.median,
                None if memory is None else memory / 2**20, first / timing.median,
            )
        )  # fmt: skip
    return rows, absent


def calls_within(seconds: float, budget: float, most: int) -> int:
    """How many calls of ``seconds`` fit into ``budget``: 2 at the least, ``most`` at the most."""
    return max(2, min(most, int(budget / max(seconds, 1e-9))))


def dominating(ours: Placed, peers: Sequence[Placed]) -> list[Placed]:
    """Peers that are at least as fast as ``ours`` and better on Set14.

    Compared at two decimals, to which the published numbers are rounded. Networks without a
    number on Set14 cannot be told and are left out.
    """
    mine = ours.set14
    if mine is None:
        return []
    return [
        peer
        for peer in peers
        if peer.set14 is not None and peer.median <= ours.median and peer.set14 > round(mine, 2)
    ]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first line is its head."""
    head, *body = lines
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body)) + "\n"


def rows_table(rows: Sequence[Row]) -> str:
    """Models, engines and sizes as Markdown."""
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
    """What could not be timed, as Markdown."""
    lines = [[one.model, one.backend, one.precision, one.reason] for one in absent]
    return markdown([["model", "backend", "precision", "absent because"], *lines])


def placed_table(placed: Sequence[Placed], calls: Mapping[str, int]) -> str:
    """Networks by latency, fastest first, as Markdown; ours in bold."""
    head = ["network", "median, ms", "timed calls", "Set5, dB", "Set14, dB"]
    lines = [
        [
            f"**{one.name}**" if one.ours else one.name,
            f"{one.median * 1e3:.0f}" if one.median >= 0.1 else f"{one.median * 1e3:.1f}",
            str(calls[one.name]),
            *("unknown" if value is None else decibel(value) for value in (one.set5, one.set14)),
        ]
        for one in sorted(placed, key=lambda one: one.median)
    ]
    return markdown([head, *lines])


def write_table(path: Path, text: str) -> None:
    """Write Markdown beside a result file.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomic(path, text.encode())
