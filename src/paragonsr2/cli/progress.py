"""One line on stderr that says how far a job is, and events for programs that wrap us."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

#: Seconds between two progress events of a job.
_EVERY = 0.5


class ProgressLine:
    """What is done of how much, rate, time left, engine and tile; nothing without a terminal.

    ``NO_COLOR`` is respected.

    Args:
        total: how much there is to do; None if that is not known.
        unit: of ``total``: files, frames.
        engine: backend and tile, for people.
        clock: seconds.

    Attributes:
        count: what is done and how fast, as shown last.
    """

    def __init__(
        self,
        total: float | None,
        unit: str,
        engine: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.unit, self.engine, self._clock = total, unit, engine, clock
        self.count = ""
        self._bar: Any = None
        self._shown: Any = None
        # The clip at hand, how many frames it had when it was first shown, and when that was.
        self._clip = ("", 0, 0.0)

    def __enter__(self) -> Self:
        """Start the line, if stderr is a terminal."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[count]}", markup=False),
                TimeRemainingColumn(),
                TextColumn(self.engine, markup=False),
                console=Console(stderr=True),
                transient=True,
                expand=True,
                # Results go above the line where both are the same terminal, and never from a
                # pipe or file into the terminal.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._bar.start()
            self._shown = self._bar.add_task("", total=self.total, count="")
        return self

    def __exit__(self, *_: object) -> None:
        """Take the line away."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, name: str, done: float, frames: int = 0) -> None:
        """Say how far it is.

        Args:
            name: what is at hand.
            done: of the whole.
            frames: of what is at hand, if it is a clip; its rate is told in them.
        """
        if self._bar is None:
            return
        task = self._bar.tasks[0]
        rate = f"{task.speed:.2f} {self.unit}/s" if task.speed else ""
        if frames:
            rate = f"{frames} frames {self._frame_rate(name, frames)}"
        whole = "" if self.total is None else f"/{self.total:g}"
        self.count = f"{int(done)}{whole} {self.unit} {rate}"
        shown = name if len(name) <= 32 else f"{name[:15]}…{name[-16:]}"
        self._bar.update(self._shown, description=shown, completed=done, count=self.count)

    def _frame_rate(self, name: str, frames: int) -> str:
        """Since the clip began, or went on."""
        now = self._clock()
        if self._clip[0] != name:
            self._clip = (name, frames, now)
        _, first, began = self._clip
        # Some clocks stand still for a while.
        return f"{(frames - first) / (now - began):.1f} frames/s" if now > began else ""


class Events:
    """JSON objects, one a line, on stdout; see docs/events.md.

    Args:
        wanted: whether anything is printed at all.
    """

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self._last = 0.0

    def send(self, event: str, fields: Mapping[str, object]) -> None:
        """Print an event."""
        if self.wanted:
            print(json.dumps({"event": event, **fields}), flush=True)

    def progress(self, fields: Mapping[str, object]) -> None:
        """Print a progress event, but not too many."""
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            self.send("progress", fields)
