"""The process that hostile models are given to: runs commands told on stdin, a line for each.

An answer is a JSON object with the exit status, what was printed, and the peak of memory in MB, of
this process during the command and of the processes that it started so far.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import traceback
from pathlib import Path

from paragonsr2.cli.main import NAME, app, exit_on_error


def peak() -> float:
    """The largest memory of this process since :func:`forget_peak`, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


def forget_peak() -> None:
    """Let the peak begin at what is used now."""
    Path("/proc/self/clear_refs").write_text("5")


def run(arguments: list[str]) -> dict[str, object]:
    """Run the command in this process."""
    said, printed = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        try:
            with exit_on_error(NAME):
                app(arguments, prog_name=NAME)
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = "traceback"
            said.write(traceback.format_exc())
    return {"code": code, "stdout": printed.getvalue()[-2000:], "stderr": said.getvalue()[-4000:]}


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        forget_peak()
        told = run(json.loads(line))
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
        answers.write(json.dumps({**told, "peak_mb": peak(), "children_mb": children}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
