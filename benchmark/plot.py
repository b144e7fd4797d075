"""A plot of quality against latency."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from benchmark.placement import Placed, frontier
from paragonsr2.errors import MissingExtraError
from paragonsr2.files import write_atomic

_OURS, _THEIRS, _FRONTIER = "#c2410c", "#475569", "#dbe3ec"
# Positions of a label relative to its mark: offset in points, alignment; best first.
_PLACES: tuple[tuple[float, float, str, str], ...] = (
    (7, 0, "left", "center"), (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"), (0, -7, "center", "top"),
    (6, 7, "left", "bottom"), (6, -7, "left", "top"),
    (-6, 7, "right", "bottom"), (-6, -7, "right", "top"),
    (0, 18, "center", "bottom"), (0, -18, "center", "top"),
    (12, 18, "left", "bottom"), (12, -18, "left", "top"),
    (-12, 18, "right", "bottom"), (-12, -18, "right", "top"),
    (0, 30, "center", "bottom"), (0, -30, "center", "top"),
)  # fmt: skip


def plot_quality_speed(placed: Sequence[Placed], title: str, path: Path) -> list[Path]:
    """Plot PSNR-Y on Set14 against latency, as SVG and PNG.

    A line joins the networks that no faster one equals: the best that can be had in each time.
    Networks without a Set14 figure appear as ticks at the lower edge.

    Args:
        placed: the networks; ours are highlighted.
        title: of the plot; should name the machine and the input.
        path: of the files, without suffix.

    Returns:
        The paths of the two files. The same data gives the same bytes.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: a file cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("the plot", "plot") from error

    # A fixed salt, and no dates below: the same data gives the same bytes.
    with mpl.rc_context({"svg.hashsalt": "paragonsr2", "font.size": 9}):
        figure = Figure(figsize=(9, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = cast(Any, figure.add_subplot())
        _draw(axes, placed, title)
        figure.canvas.draw()
        _label(axes, placed)
        made: list[Path] = []
        for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
            file = io.BytesIO()
            cast(Any, figure).savefig(file, format=suffix[1:], dpi=150, metadata=metadata)
            target = path.with_name(path.name + suffix)
            write_atomic(target, file.getvalue())
            made.append(target)
    return made


def _known(placed: Sequence[Placed]) -> list[Placed]:
    """The networks with a Set14 figure; ours first, so that their labels get the best places."""
    known = [one for one in placed if one.set14 is not None]
    return sorted(known, key=lambda one: (not one.ours, one.median))


def _draw(axes: Any, placed: Sequence[Placed], title: str) -> None:
    known = _known(placed)
    for ours, colour, mark, area in ((False, _THEIRS, "o", 26), (True, _OURS, "*", 190)):
        group = [one for one in known if one.ours is ours]
        axes.scatter(
            [one.median * 1e3 for one in group], [one.set14 for one in group],
            c=colour, marker=mark, s=area, zorder=3, label="this package" if ours else "others",
        )  # fmt: skip
    best = frontier(placed)
    axes.plot(
        [one.median * 1e3 for one in best], [one.set14 for one in best],
        color=_FRONTIER, linewidth=3, zorder=1, drawstyle="steps-post",
        label="the best in each time",
    )  # fmt: skip
    for one in placed:
        if one.set14 is None:
            milliseconds = one.median * 1e3
            axes.axvline(milliseconds, ymax=0.03, color=_THEIRS, linewidth=1)
            axes.annotate(
                f"{one.name}: no Set14 figure", (milliseconds, 0.035),
                xycoords=("data", "axes fraction"), rotation=90, ha="center", va="bottom",
                fontsize=7, color=_THEIRS,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(0.12, 0.1)
    axes.set_xlabel("median latency of a call, ms (logarithmic; left is faster)")
    axes.set_ylabel("PSNR-Y on Set14, x2, dB (up is better)")
    axes.set_title(title, fontsize=9, loc="left")
    axes.grid(True, which="both", linewidth=0.4, alpha=0.4)
    if known:
        axes.legend(loc="upper left", frameon=False)


def _label(axes: Any, placed: Sequence[Placed]) -> None:
    """Write each name where it covers no other name or mark, or else where it covers fewest."""
    from matplotlib.text import Text

    renderer = axes.figure.canvas.get_renderer()
    known = _known(placed)
    taken: list[Any] = [text.get_window_extent(renderer) for text in axes.texts]
    marks = [axes.transData.transform((one.median * 1e3, one.set14)) for one in known]
    for one, mark in zip(known, marks, strict=True):
        others = [other for other in marks if other is not mark]
        trials: list[tuple[int, Any, Any]] = []
        for x, y, across, along in _PLACES:
            reach = 1.6 if one.ours else 1.0  # a star is larger than a dot
            text = axes.annotate(
                one.name, (one.median * 1e3, one.set14), (reach * x, reach * y),
                textcoords="offset points",
                ha=across, va=along, color=_OURS if one.ours else "#0f172a",
                weight="bold" if one.ours else "normal", fontsize=10 if one.ours else 8,
                # A line connects a name that is far from its mark.
                arrowprops={"arrowstyle": "-", "lw": 0.5} if abs(y) > 7 else None,
            )  # fmt: skip
            text.update_positions(renderer)
            # The extent of the name without that line.
            box = Text.get_window_extent(text, renderer)
            hits = sum(box.overlaps(other) for other in taken)
            hits += sum(box.padded(3).contains(*other) for other in others)
            outside = not (axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max))
            text.remove()
            trials.append((hits + outside, text, box))
            if trials[-1][0] == 0:
                break
        _, text, box = min(trials, key=lambda trial: trial[0])
        axes.add_artist(text)
        taken.append(box)
