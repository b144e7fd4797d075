"""Our networks, as deployed and as trained, beside other people's: same engine, same run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from benchmark.peers import (
    RECIPES,
    PeerRow,
    build_peer,
    least_seconds,
    to_onnx,
    uncollapsed,
)
from benchmark.placement import Placed, calls_within, dominating, placed_table
from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.errors import EnvironmentProblem
from paragonsr2.measure.latency import Resolution, Run, markdown
from paragonsr2.measure.speed import (
    Timing,
    matrix_peak,
    noise_inputs,
    seconds_side_by_side,
    timing_of,
)
from paragonsr2.network.generator import build
from paragonsr2.upscale.resources import available_memory

_UNCOLLAPSED = "not collapsed"
#: No further network is opened when less than this share of the memory at the start is left.
_KEPT_FREE = 0.5


@dataclass(frozen=True)
class Ours:
    """One of our networks at x2.

    Attributes:
        name: to show.
        variant: short name.
        kmacs_per_pixel: thousand multiply-adds per input pixel, deployed.
        set5: PSNR-Y on Set5 in dB; None if not measured.
        set14: PSNR-Y on Set14 in dB; None if not measured.
        runs: the deployed network by engine; the first engine is the one that peers run in.
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
        limit: seconds per call; slower networks are left out.
        budget: seconds for the timed calls of one network.
        calls: maximum number of timed calls per network.
    """

    limit: float = 20.0
    budget: float = 10.0
    calls: int = 15


@dataclass(frozen=True)
class Comparison:
    """The findings of a comparison.

    Attributes:
        placed: our networks and the timed peers, each in the common engine.
        result: all findings, for a result file.
        text: the findings in Markdown.
    """

    placed: list[Placed]
    result: dict[str, Any]
    text: str


def compare(
    ours: Sequence[Ours],
    peers: Sequence[PeerRow],
    resolution: Resolution,
    open_onnx: Callable[[bytes], Run],
    patience: Patience,
    progress: Callable[[str], None],
) -> Comparison:
    """Time our networks, their uncollapsed forms, and every peer that can be built.

    Peers stand open together as far as memory allows: an engine keeps the tensors of a call for
    the next one. What does not fit follows in a further group, beside ours again.

    Args:
        ours: our networks, already opened.
        peers: rows of the table.
        resolution: of the input.
        open_onnx: opens a graph in the common engine.
        patience: gives slow networks fewer calls, or none.
        progress: receives a line before each step.

    Returns:
        The timings, the networks that were not timed and why, the share of the machine's peak
        that each of ours reaches, and the peers that are at least as fast and better.
    """
    peak = matrix_peak()
    x = noise_inputs(resolution.height, resolution.width, count=1)[0]
    opened = [_Opened(name, run, x) for name, run in _our_runs(ours, resolution, open_onnx)]
    least_free = available_memory() * _KEPT_FREE
    seconds: dict[str, list[float]] = defaultdict(list)
    not_timed: list[dict[str, str]] = []
    waiting = list(peers)
    while True:
        group = list(opened)
        while waiting and (len(group) == len(opened) or available_memory() > least_free):
            row = waiting.pop(0)
            progress(f"building {row.name}")
            try:
                group.append(_open_peer(row, resolution, x, open_onnx, patience, peak))
            except EnvironmentProblem as error:
                not_timed.append({"name": row.name, "reason": str(error)})
        progress(f"timing {len(group)} networks at {resolution}")
        for name, taken in _time_group(group, resolution, patience, progress).items():
            seconds[name] += taken
        if not waiting:
            break
    # Other programs may have disturbed the first measurement; the peak is the best of both.
    peak = max(peak, matrix_peak())
    timings = {name: timing_of(taken) for name, taken in seconds.items()}
    return _findings(ours, peers, resolution, timings, not_timed, peak, patience)


def _time_group(
    group: Sequence[_Opened],
    resolution: Resolution,
    patience: Patience,
    progress: Callable[[str], None],
) -> dict[str, list[float]]:
    # Every network has run once already; that was its warm-up.
    return seconds_side_by_side(
        {one.name: one.run for one in group},
        resolution.height,
        resolution.width,
        calls={
            one.name: calls_within(one.first_call, patience.budget, patience.calls) for one in group
        },
        warmup=0,
        progress=progress,
    )


def trained_form(variant: str, resolution: Resolution) -> bytes:
    """The ONNX graph of a variant at x2 with every branch as a convolution of its own.

    The weights are random; they take the same time as trained ones.
    """
    return to_onnx(uncollapsed(build(variant, 2)), resolution.height, resolution.width)


class _Opened:
    """A network that has run once.

    Attributes:
        name: in the timings.
        run: upscales an input.
        first_call: its seconds.
    """

    def __init__(self, name: str, run: Run, x: FloatNCHW) -> None:
        self.name = name
        self.run = run
        started = perf_counter()
        run(x)
        self.first_call = perf_counter() - started


def _our_runs(
    ours: Sequence[Ours], resolution: Resolution, open_onnx: Callable[[bytes], Run]
) -> Iterator[tuple[str, Run]]:
    for one in ours:
        for engine, run in one.runs.items():
            yield _key(one.name, engine), run
        yield _key(one.name, _UNCOLLAPSED), open_onnx(trained_form(one.variant, resolution))


def _key(name: str, engine: str) -> str:
    return f"{name}, {engine}"


class _TooSlowError(EnvironmentProblem):
    """A peer takes longer than the limit."""


def _open_peer(
    row: PeerRow,
    resolution: Resolution,
    x: FloatNCHW,
    open_onnx: Callable[[bytes], Run],
    patience: Patience,
    peak: float,
) -> _Opened:
    """Open a peer in the common engine."""
    least = least_seconds(row, resolution.height, resolution.width, peak)
    if least > patience.limit:
        raise _TooSlowError(
            f"at this machine's peak a call would take {least:.0f} s; the limit is "
            f"{patience.limit:.0f} s"
        )
    network = build_peer(row)
    channels = RECIPES[row.name].channels
    whole = open_onnx(to_onnx(network, resolution.height, resolution.width, channels))

    def run(picture: FloatNCHW) -> object:
        return whole(picture[:, :channels])

    opened = _Opened(row.name, run, x)
    if opened.first_call > patience.limit:
        raise _TooSlowError(
            f"a call took {opened.first_call:.0f} s; the limit is {patience.limit:.0f} s"
        )
    return opened


def _findings(
    ours: Sequence[Ours],
    peers: Sequence[PeerRow],
    resolution: Resolution,
    timings: Mapping[str, Timing],
    not_timed: list[dict[str, str]],
    peak: float,
    patience: Patience,
) -> Comparison:
    timed = [row for row in peers if row.name in timings]
    placed_peers = [
        Placed(row.name, timings[row.name].median, row.set5, row.set14) for row in timed
    ]
    placed_ours = [
        Placed(one.name, _deployed(one, timings).median, one.set5, one.set14, ours=True)
        for one in ours
    ]
    calls = {row.name: timings[row.name].calls for row in timed}
    calls |= {one.name: _deployed(one, timings).calls for one in ours}
    result: dict[str, Any] = {
        "input": [resolution.width, resolution.height],
        "scale": 2,
        "patience": asdict(patience),
        "matrix_peak_gflops": round(peak / 1e9, 1),
        "ours": [
            _our_entry(one, resolution, timings, peak, dominating(place, placed_peers))
            for one, place in zip(ours, placed_ours, strict=True)
        ],
        "peers": [_peer_entry(row, timings[row.name]) for row in timed],
        "not_timed": not_timed,
    }
    placed = [*placed_ours, *placed_peers]
    return Comparison(placed, result, _text(result, placed, calls))


def _deployed(one: Ours, timings: Mapping[str, Timing]) -> Timing:
    return timings[_key(one.name, next(iter(one.runs)))]


def _our_entry(
    one: Ours,
    resolution: Resolution,
    timings: Mapping[str, Timing],
    peak: float,
    better: Sequence[Placed],
) -> dict[str, Any]:
    flops = 2e3 * one.kmacs_per_pixel * resolution.height * resolution.width
    engines: dict[str, Any] = {}
    for name in one.runs:
        timing = timings[_key(one.name, name)]
        share = round(flops / timing.median / peak, 4)
        engines[name] = {**asdict(timing), "share_of_peak": share}
    whole = timings[_key(one.name, _UNCOLLAPSED)]
    ratio = round(whole.median / _deployed(one, timings).median, 3)
    return {
        "name": one.name,
        "psnr_y_x2_Set5": one.set5,
        "psnr_y_x2_Set14": one.set14,
        "gmacs": round(flops / 2e9, 3),
        "engines": engines,
        "faster_and_better": [
            {"name": peer.name, "median": peer.median, "psnr_y_x2_Set14": peer.set14}
            for peer in better
        ],
        "not_collapsed": {**asdict(whole), "times_the_deployed": ratio},
    }


def _peer_entry(row: PeerRow, timing: Timing) -> dict[str, Any]:
    return {
        "name": row.name,
        **asdict(timing),
        "kparams": row.kparams,
        "gmacs": row.gmacs,
        "psnr_y_x2_Set5": row.set5,
        "psnr_y_x2_Set14": row.set14,
        "source": row.source,
        "input": "luma" if RECIPES[row.name].channels == 1 else "RGB",
    }


def _text(result: Mapping[str, Any], placed: Sequence[Placed], calls: Mapping[str, int]) -> str:
    lines: list[str] = []
    for one in result["ours"]:
        for engine, timing in one["engines"].items():
            lines.append(
                f"- {one['name']} in {engine}: {timing['median'] * 1e3:.1f} ms, "
                f"{timing['share_of_peak']:.1%} of the peak.\n"
            )
        whole = one["not_collapsed"]
        lines.append(
            f"- {one['name']} not collapsed: {whole['median'] * 1e3:.1f} ms, "
            f"{whole['times_the_deployed']:.2f} times the deployed form.\n"
        )
        better = ", ".join(peer["name"] for peer in one["faster_and_better"]) or "none"
        lines.append(f"- At least as fast as {one['name']} and better on Set14: {better}.\n")
    if result["not_timed"]:
        rows = [[row["name"], row["reason"]] for row in result["not_timed"]]
        lines += ["\n", markdown([["network", "not timed because"], *rows])]
    peak = f"Peak of a large float32 matrix product: {result['matrix_peak_gflops']:.0f} GFLOP/s.\n"
    return f"{placed_table(placed, calls)}\n{peak}\n{''.join(lines)}"
