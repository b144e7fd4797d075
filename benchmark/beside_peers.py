"""``--peers`` of ``paragonsr2 benchmark``: the comparison with other networks, and its plot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.peers import read_peers
from benchmark.plot import plot_quality_speed
from benchmark.side_by_side import Ours, Patience, compare
from paragonsr2.cli.candidates import open_onnx, open_openvino
from paragonsr2.errors import EnvironmentProblem
from paragonsr2.measure.latency import Resolution, Run
from paragonsr2.upscale.backends import OnnxBackend
from paragonsr2.weights.catalogue import Entry


def beside_peers(
    entries: Sequence[Entry],
    table: Path,
    plot: Path,
    *,
    title: str,
    resolution: Resolution,
    threads: int,
    limit: float,
    budget: float,
    progress: Callable[[str], None],
) -> tuple[dict[str, Any], str]:
    """Time our bundled x2 networks beside the networks of a table, and draw them all.

    Args:
        entries: bundled models for x2.
        table: JSON list of networks, see :func:`benchmark.peers.read_peers`.
        plot: path of the plot, without suffix.
        title: of the plot; names the machine and the input.
        resolution: of the input.
        threads: processor threads.
        limit: seconds per call; slower networks are left out.
        budget: seconds for the timed calls of one network.
        progress: receives a line before each step.

    Returns:
        The findings for a result file, and in Markdown.

    Raises:
        UsageError: the table cannot be read.
        MissingExtraError: matplotlib is not installed.
        OutputError: the plot cannot be written.
    """
    ours = [_ours(entry, threads, progress) for entry in entries]

    def open_graph(content: bytes) -> Run:
        return OnnxBackend(content, device="cpu", threads=threads, trusted=True).run

    patience = Patience(limit=limit, budget=budget)
    compared = compare(ours, read_peers(table), resolution, open_graph, patience, progress)
    for file in plot_quality_speed(compared.placed, title, plot):
        progress(f"wrote {file}")
    return compared.result, compared.text


def _ours(entry: Entry, threads: int, progress: Callable[[str], None]) -> Ours:
    runs = {"ONNX Runtime": open_onnx(entry, "onnx", "cpu", threads)}
    try:
        runs["OpenVINO"] = open_openvino(entry, "cpu", "fp32", threads)
    except EnvironmentProblem as error:
        progress(f"without OpenVINO: {error}")
    quality = {name: row["psnr_y"] for name, row in entry.quality.items()}
    return Ours(
        name=entry.model,
        variant=entry.variant,
        kmacs_per_pixel=entry.kmacs_per_pixel,
        set5=quality.get("Set5"),
        set14=quality.get("Set14"),
        runs=runs,
    )
