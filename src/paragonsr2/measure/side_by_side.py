"""Our networks beside other people's: same input, engine and threads, in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.errors import EnvironmentProblem
from paragonsr2.measure.benchmark import (
    Placed,
    Run,
    Size,
    calls_within,
    dominating,
    markdown,
    placed_table,
)
from paragonsr2.measure.peers import (
    RECIPES,
    PeerRow,
    build_peer,
    least_seconds,
    to_onnx,
    uncollapsed,
)
from paragonsr2.measure.speed import Timing, matrix_peak, noise_inputs, time_side_by_side
from paragonsr2.network.generator import build

_UNCOLLAPSED = "not collapsed"


@dataclass(frozen=True)
class Ours:
    """One of our networks at x2.

    Attributes:
        name: for people.
        variant: short name.
        kmacs_per_pixel: thousand multiply-adds per input pixel, deployed.
        set5: PSNR-Y in decibel; None if not measured.
        set14: likewise.
        runs: the deployed network by engine; the first is the one that peers run in.
    """

    name: str
    variant: str
    kmacs_per_pixel: float
    set5: float | None
    set14: float | None
    runs: Mapping[str, Run]


@dataclass(frozen=True)
class Patience:
    """How long the comparison may take.

    Attributes:
        limit: seconds; a network whose call takes longer is not timed.
        budget: seconds for the timed calls of one network.
        calls: most timed calls of one network.
    """

    limit: float = 20.0
    budget: float = 10.0
    calls: int = 15


@dataclass(frozen=True)
class Comparison:
    """What a side-by-side run found.

    Attributes:
        placed: ours and the peers that were timed, each in the common engine.
        result: everything, for a result file.
        text: as Markdown.
    """

    placed: list[Placed]
    result: dict[str, Any]
    text: str


def compare(
    ours: Sequence[Ours],
    peers: Sequence[PeerRow],
    size: Size,
    open_onnx: Callable[[bytes], Run],
    patience: Patience,
    progress: Callable[[str], None],
) -> Comparison:
    """Time ours, ours as they would be without collapsing, and every peer that can be built.

    Args:
        ours: opened already.
        peers: rows of the table.
        size: of the input.
        open_onnx: puts a graph into the common engine.
        patience: heavy networks get fewer calls, or none.
        progress: told what is being done.

    Returns:
        Timings, what was not timed and why, shares of the machine's peak, and for each of ours
        the peers that are at least as fast and better.
    """
    peak = matrix_peak()
    x = noise_inputs(size.height, size.width, count=1)[0]
    runs: dict[str, Run] = {}
    seconds: dict[str, float] = {}
    for one in ours:
        for engine, run in one.runs.items():
            runs[_key(one.name, engine)] = run
        runs[_key(one.name, _UNCOLLAPSED)] = open_onnx(trained_form(one.variant, size))
    for name, run in runs.items():
        seconds[name] = _seconds(run, x)
    not_timed: list[dict[str, str]] = []
    for row in peers:
        progress(f"building {row.name}")
        try:
            run, taken = _open_peer(row, size, x, open_onnx, patience, peak)
        except EnvironmentProblem as error:
            not_timed.append({"name": row.name, "reason": str(error)})
        else:
            runs[row.name], seconds[row.name] = run, taken
    calls = {
        name: calls_within(taken, patience.budget, patience.calls)
        for name, taken in seconds.items()
    }
    progress(f"timing {len(runs)} networks at {size}")
    # Each has been called once by now, which is its warm-up.
    timings = time_side_by_side(
        runs, size.height, size.width, calls=calls, warmup=0, progress=progress
    )
    # The machine may have been busy the first time; the peak is what it can do at best.
    peak = max(peak, matrix_peak())
    return _told(ours, peers, size, timings, not_timed, peak, patience)


def trained_form(variant: str, size: Size) -> bytes:
    """The graph of a variant at x2 that runs its branches one by one.

    Random weights, which cost the same time.
    """
    return to_onnx(uncollapsed(build(variant, 2)), size.height, size.width)


def _key(name: str, engine: str) -> str:
    return f"{name}, {engine}"


def _seconds(run: Run, x: FloatNCHW) -> float:
    started = perf_counter()
    run(x)
    return perf_counter() - started


class _TooSlowError(EnvironmentProblem):
    """A peer is left out to spare time."""


def _open_peer(
    row: PeerRow,
    size: Size,
    x: FloatNCHW,
    open_onnx: Callable[[bytes], Run],
    patience: Patience,
    peak: float,
) -> tuple[Run, float]:
    """A peer in the common engine, and the seconds of its first call."""
    least = least_seconds(row, size.height, size.width, peak)
    if least > patience.limit:
        raise _TooSlowError(
            f"at this machine's peak a call would take {least:.0f} s; the limit is "
            f"{patience.limit:.0f} s"
        )
    network = build_peer(row)
    channels = RECIPES[row.name].channels
    whole = open_onnx(to_onnx(network, size.height, size.width, channels))

    def run(picture: FloatNCHW) -> object:
        return whole(picture[:, :channels])

    taken = _seconds(run, x)
    if taken > patience.limit:
        raise _TooSlowError(f"a call took {taken:.0f} s; the limit is {patience.limit:.0f} s")
    return run, taken


def _told(
    ours: Sequence[Ours],
    peers: Sequence[PeerRow],
    size: Size,
    timings: Mapping[str, Timing],
    not_timed: list[dict[str, str]],
    peak: float,
    patience: Patience,
) -> Comparison:
    """Put the findings in order."""
    mine: list[dict[str, Any]] = []
    placed_ours: list[Placed] = []
    placed_peers: list[Placed] = []
    counted: dict[str, int] = {}
    for row in peers:
        if row.name in timings:
            timing = timings[row.name]
            placed_peers.append(Placed(row.name, timing.median, row.set5, row.set14))
            counted[row.name] = timing.calls
    for one in ours:
        engine = next(iter(one.runs))
        deployed = timings[_key(one.name, engine)]
        place = Placed(one.name, deployed.median, one.set5, one.set14, ours=True)
        placed_ours.append(place)
        counted[one.name] = deployed.calls
        flops = 2e3 * one.kmacs_per_pixel * size.height * size.width
        entry: dict[str, Any] = {
            "name": one.name,
            "psnr_y_x2_Set5": one.set5,
            "psnr_y_x2_Set14": one.set14,
            "gmacs": round(flops / 2e9, 3),
            "engines": {
                name: {
                    **asdict(timings[_key(one.name, name)]),
                    "share_of_peak": round(flops / timings[_key(one.name, name)].median / peak, 4),
                }
                for name in one.runs
            },
            "faster_and_better": [
                {"name": p.name, "median": p.median, "psnr_y_x2_Set14": p.set14}
                for p in dominating(place, placed_peers)
            ],
        }
        whole = timings.get(_key(one.name, _UNCOLLAPSED))
        if whole is not None:
            ratio = whole.median / deployed.median
            entry["not_collapsed"] = {**asdict(whole), "times_the_deployed": round(ratio, 3)}
        mine.append(entry)
    theirs = [
        {
            "name": row.name,
            **asdict(timings[row.name]),
            "kparams": row.kparams,
            "gmacs": row.gmacs,
            "psnr_y_x2_Set5": row.set5,
            "psnr_y_x2_Set14": row.set14,
            "source": row.source,
            "input": "luma" if RECIPES[row.name].channels == 1 else "RGB",
        }
        for row in peers
        if row.name in timings
    ]
    placed = [*placed_ours, *placed_peers]
    result: dict[str, Any] = {
        "input": [size.width, size.height],
        "scale": 2,
        "patience": asdict(patience),
        "matrix_peak_gflops": round(peak / 1e9, 1),
        "ours": mine,
        "peers": theirs,
        "not_timed": not_timed,
    }
    return Comparison(placed, result, _text(result, placed, counted))


def _text(result: Mapping[str, Any], placed: Sequence[Placed], calls: Mapping[str, int]) -> str:
    parts = [placed_table(placed, calls)]
    parts.append(
        f"Peak of a large float32 matrix product: {result['matrix_peak_gflops']:.0f} GFLOP/s.\n"
    )
    for one in result["ours"]:
        for engine, timing in one["engines"].items():
            parts.append(
                f"- {one['name']} in {engine}: {timing['median'] * 1e3:.1f} ms, "
                f"{timing['share_of_peak']:.1%} of the peak.\n"
            )
        if "not_collapsed" in one:
            parts.append(
                f"- {one['name']} not collapsed: {one['not_collapsed']['median'] * 1e3:.1f} ms, "
                f"{one['not_collapsed']['times_the_deployed']:.2f} times the deployed.\n"
            )
        better = ", ".join(peer["name"] for peer in one["faster_and_better"]) or "none"
        parts.append(f"- At least as fast as {one['name']} and better on Set14: {better}.\n")
    if result["not_timed"]:
        lines = [[row["name"], row["reason"]] for row in result["not_timed"]]
        parts += ["\n", markdown([["network", "not timed because"], *lines])]
    return "".join([parts[0], "\n", parts[1], "\n", *parts[2:]])
