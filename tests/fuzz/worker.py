"""The process that is fuzzed: enlarges files named on stdin, and answers a line for each.

An answer is a JSON object with ``status``, ``message`` and ``notes``. Whatever is no outcome of
the package is told as ``status`` ``traceback``; a crash or a hang is seen by who asks.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler


def main() -> None:
    """Serve until stdin ends."""
    upscaler = Upscaler("magic", 2)
    for line in sys.stdin:
        source, target = map(Path, json.loads(line))
        try:
            outcome = run_task(Task(source, target), upscaler, overwrite=True, max_pixels=4_000_000)
            answer = {
                "status": outcome.status,
                "message": outcome.message,
                "notes": "; ".join(outcome.notes),
            }
        except Exception:
            answer = {"status": "traceback", "message": traceback.format_exc(), "notes": ""}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
