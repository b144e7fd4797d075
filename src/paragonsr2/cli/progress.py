"""A progress line on stderr for people, and events on stdout for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from paragonsr2.cli.output import shown

#: Seconds between two progress events of a job.
_EVERY = 0.5


class ProgressLine:
    """A progress line: amount done, rate, time left, engine and tile.

    Nothing is shown unless stderr is a terminal. ``NO_COLOR`` is respected.

    Args:
        total: how much there is to do; None if unknown.
        unit: of ``total``, such as files.
        engine: description of backend and tile.
        clock: returns the time in seconds.

    Attributes:
        count: the amount done and the rate, as last shown.
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
        # Name of the current clip, its number of frames when it was first shown, and the time.
        self._clip = ("", 0, 0.0)

    def __enter__(self) -> Self:
        """Show the line if stderr is a terminal."""
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
                # Results appear above the line if stdout is the terminal, too. If it is a pipe or
                # a file, they must go there.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._bar.start()
            self._shown = self._bar.add_task("", total=self.total, count="")
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, name: str, done: float, frames: int = 0) -> None:
        """Update the line.

        Args:
            name: the current file.
            done: how much of the total is done.
            frames: finished frames of the current file if it is a clip, for the rate.
        """
        if self._bar is None:
            return
        task = self._bar.tasks[0]
        rate = f"{task.speed:.2f} {self.unit}/s" if task.speed else ""
        if frames:
            rate = f"{frames} frames {self._frame_rate(name, frames)}"
        whole = "" if self.total is None else f"/{self.total:g}"
        self.count = f"{int(done)}{whole} {self.unit} {rate}"
        short = shown(name if len(name) <= 32 else f"{name[:15]}…{name[-16:]}")
        self._bar.update(self._shown, description=short, completed=done, count=self.count)

    def _frame_rate(self, name: str, frames: int) -> str:
        """The rate since the clip was started or resumed."""
        now = self._clock()
        if self._clip[0] != name:
            self._clip = (name, frames, now)
        _, first, began = self._clip
        # The resolution of some clocks is coarse.
        return f"{(frames - first) / (now - began):.1f} frames/s" if now > began else ""


class Events:
    """JSON objects on stdout, one per line; see docs/events.md.

    Args:
        wanted: print them; otherwise nothing is printed.
    """

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self._last = 0.0

    def send(self, event: str, fields: Mapping[str, object]) -> None:
        """Print an event."""
        if self.wanted:
            print(json.dumps({"event": event, **fields}), flush=True)

    def progress(self, fields: Mapping[str, object]) -> None:
        """Print a progress event, unless the last one was printed a moment ago."""
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            self.send("progress", fields)
