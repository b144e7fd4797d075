"""The process that hostile models are given to: runs commands told on stdin, a line for each.

It imports everything once, and runs each command in a fork, which is as new as any process. The
limited process that opens a model is a fork too, unless the order says ``cold``: it does what
``python -m`` does, in the memory that the imports fill already. An order is a JSON object with
``arguments`` and ``cold``. An answer has the exit status, what was printed, and the peaks of memory
in MB, of the command and of the largest process that it started.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import av  # noqa: F401 - what follows is imported for the forks
import networkx  # noqa: F401
import onnx.shape_inference  # noqa: F401
import onnxruntime  # noqa: F401
import onnxscript.optimizer  # noqa: F401
import pyvips  # noqa: F401
import torch._dynamo
import torch._export.serde.serialize
import torch._functorch.aot_autograd
import torch._inductor.codecache
import torch.onnx._internal.exporter._core  # noqa: F401

import paragonsr2.cli.evaluate
import paragonsr2.export.release
import paragonsr2.upscale.job
import paragonsr2.weights.graph_check
import paragonsr2.weights.pickled  # noqa: F401
from paragonsr2.cli.main import NAME, app, exit_on_error
from paragonsr2.weights import limited


def peak() -> float:
    """The largest memory that this process had, in MB; that of a fork begins at its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


def run_module(
    command: list[str],
    *,
    input: bytes,  # noqa: A002 - subprocess says so
    timeout: float,
    **_: Any,
) -> subprocess.CompletedProcess[bytes]:
    """``subprocess.run`` of ``python -P -m module ...``, in a fork."""
    _, _, _, module, *arguments = command
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed:
        given.write(input)
        given.seek(0)
        child = os.fork()
        if not child:
            os.dup2(given.fileno(), 0)
            os.dup2(printed.fileno(), 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
            status = 1
            try:
                sys.argv = [module, *arguments]
                runpy.run_module(module, run_name="__main__", alter_sys=True)
                sys.stdout.flush()
                status = 0
            finally:
                os._exit(status)
        waiting = os.pidfd_open(child)
        ended, _, _ = select.select([waiting], [], [], timeout)
        os.close(waiting)
        if not ended:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not ended:
            raise subprocess.TimeoutExpired(command, timeout)
        printed.seek(0)
        return subprocess.CompletedProcess(
            command, os.waitstatus_to_exitcode(status), printed.read(), b""
        )


def run(arguments: list[str]) -> dict[str, object]:
    """Run the command in this process."""
    said, printed = io.StringIO(), io.StringIO()
    code: object = 0
    started = time.perf_counter()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        try:
            with exit_on_error(NAME):
                app(arguments, prog_name=NAME)
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = "traceback"
            said.write(traceback.format_exc())
    return {
        "code": code,
        "stdout": printed.getvalue()[-2000:],
        "stderr": said.getvalue()[-4000:],
        "seconds": time.perf_counter() - started,
        "peak_mb": peak(),
        "children_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3,
    }


class _Forking:
    """What stands in for the module ``subprocess`` in the module that starts limited processes."""

    TimeoutExpired = subprocess.TimeoutExpired
    run = staticmethod(run_module)


def main() -> None:
    """Serve until stdin ends."""
    answers = os.dup(1)
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            if not order["cold"]:
                limited.subprocess = _Forking  # pyright: ignore[reportAttributeAccessIssue]
            told = json.dumps(run(order["arguments"])) + "\n"
            os.write(answers, told.encode())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            os.write(answers, json.dumps({"code": f"crash {status}"}).encode() + b"\n")


if __name__ == "__main__":
    main()
