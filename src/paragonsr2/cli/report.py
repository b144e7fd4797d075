"""What the user sees of a job: results, messages, progress, events and the summary."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from paragonsr2.cli.output import shown
from paragonsr2.cli.progress import Events, ProgressLine
from paragonsr2.errors import InterruptedJobError

if TYPE_CHECKING:
    from paragonsr2.upscale.task import Outcome, TaskProgress
    from paragonsr2.upscale.upscaler import EngineFacts


class JobReport:
    """Reports a job while it runs, and explains what is kept if the user interrupts it.

    Args:
        facts: of the job's upscaler.
        files: number of files.
        as_json: print one JSON object at the end.
        as_events: print JSON objects as the job goes on.
        quiet: do not print the paths of results.
        shown: how a text that contains paths is shown to the user.

    Raises:
        InterruptedJobError: on leaving the context after Ctrl-C.
    """

    def __init__(
        self,
        facts: EngineFacts,
        files: int,
        *,
        as_json: bool = False,
        as_events: bool = False,
        quiet: bool = False,
        shown: Callable[[str], str] = str,
    ) -> None:
        self._about: dict[str, object] = {
            "model": facts.model,
            "scale": facts.scale,
            "backend": facts.engine,
            "tile": facts.tile or "off",
        }
        self._files, self._as_json, self._shown = files, as_json, shown
        self._silent = as_json or as_events or quiet
        self._events = Events(wanted=as_events)
        self._line = ProgressLine(
            files, "files", f"{self._about['backend']}, tile {self._about['tile']}"
        )
        self._started = time.perf_counter()
        self._outcomes: list[tuple[Outcome, str]] = []
        self._clip: TaskProgress | None = None

    @property
    def failed(self) -> bool:
        """Whether any file failed."""
        return any(outcome.status == "failed" for outcome, _ in self._outcomes)

    def __enter__(self) -> Self:
        """Announce the job."""
        self._events.send("start", {**self._about, "files": self._files})
        self._line.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Print the summary, or what is kept of an interrupted job."""
        self._line.__exit__(kind, error, trace)
        if isinstance(error, KeyboardInterrupt):
            raise InterruptedJobError(self._interruption()) from None
        if error is None:
            self._summarise()

    def progress(self, state: TaskProgress) -> None:
        """Show how far a task is."""
        task = state.task
        if state.resumed and (self._clip is None or self._clip.task != task):
            of_all = f" of about {state.total}" if state.total else ""
            self._say(
                task.source,
                f"resuming after frame {state.resumed}{of_all}, where an earlier run ended",
            )
        if state.frames:
            self._clip = state
        finished = len(self._outcomes)
        self._line.show(task.source.name, finished + state.share, state.frames)
        self._events.progress(
            {
                "input": str(task.source),
                "share": round(state.share, 4),
                "frames": state.frames,
                "resumed": state.resumed,
                "finished": finished,
            }
        )

    def add(self, outcome: Outcome, model: str) -> None:
        """Report a finished task, and the model that did it."""
        self._clip = None
        self._outcomes.append((outcome, model))
        self._line.show(outcome.source.name, len(self._outcomes))
        self._events.send("result", _fields(outcome, model))
        if outcome.status == "done" and not self._silent:
            path = str(outcome.target)
            # A pipe gets the name itself.
            print(shown(path) if sys.stdout.isatty() else path, flush=True)
        if outcome.message:
            self._say(outcome.source, f"{outcome.status}: {outcome.message}")

    def _say(self, source: Path, text: str) -> None:
        print(shown(self._shown(f"{source}: {text}")), file=sys.stderr)

    def _interruption(self) -> str:
        again = "run the same command again to"
        if self._clip is None:
            done = len(self._outcomes)
            return f"interrupted after {done} of {self._files} files; {again} go on with the rest"
        from paragonsr2.clips.segments import work_folder

        task, kept = self._clip.task, self._clip.kept
        if not kept:
            return (
                f"interrupted before a segment of {task.source} was finished; "
                f"{again} start over, with a smaller --segment to keep more"
            )
        of_all = f" of about {self._clip.total}" if self._clip.total else ""
        return (
            f"interrupted: {kept}{of_all} frames of {task.target} are kept in "
            f"{work_folder(task.target)}; {again} resume there"
        )

    def _summarise(self) -> None:
        count = Counter(outcome.status for outcome, _ in self._outcomes)
        noted = sum(bool(outcome.notes) for outcome, _ in self._outcomes)
        seconds = time.perf_counter() - self._started
        summary: dict[str, object] = {
            **self._about,
            "seconds": round(seconds, 4),
            **{status: count[status] for status in ("done", "skipped", "failed")},
            "noted": noted,
        }
        self._events.send("end", summary)
        if self._as_json:
            print(json.dumps({**summary, "results": [_fields(*one) for one in self._outcomes]}))
        elif not self._events.wanted:
            parts = [f"{count[key]} {key}" for key in ("done", "skipped", "failed") if count[key]]
            parts += [f"{noted} with notes on damage"] if noted else []
            about = self._about
            line = (
                f"{', '.join(parts)} in {seconds:.1f} s  ({about['model']} x{about['scale']}, "
                f"{about['backend']}, tile {about['tile']})"
            )
            print(shown(line), file=sys.stderr)
            if advice := self._advice():
                print(advice, file=sys.stderr)

    def _advice(self) -> str:
        """What would have made better pictures of compressed JPEGs; empty for nothing."""
        from paragonsr2.variants import VARIANTS
        from paragonsr2.weights.purposes import BEST_FOR_JPEGS

        best = BEST_FOR_JPEGS.get(cast(int, self._about["scale"]))
        if best is None:
            return ""
        coarse = sum(
            one.status == "done" and one.jpeg_quality is not None and one.jpeg_quality < best.below
            for one, model in self._outcomes
            if model in VARIANTS
        )
        if not coarse:
            return ""
        these = "one is a JPEG" if coarse == 1 else f"{coarse} are JPEGs"
        return f"{these} of a quality below {best.below}; --model {best.model} mends what it cost"


def _fields(outcome: Outcome, model: str) -> dict[str, object]:
    """The fields of a result, as docs/events.md describes them."""
    return {
        "input": str(outcome.source),
        "output": str(outcome.target),
        "model": model,
        "status": outcome.status,
        "message": outcome.message,
        "notes": outcome.notes,
        "width": outcome.width,
        "height": outcome.height,
        "pages": outcome.pages,
        "frames": outcome.frames,
        "resumed": outcome.resumed,
        "jpeg_quality": outcome.jpeg_quality,
        "seconds": round(outcome.seconds, 4),
    }
