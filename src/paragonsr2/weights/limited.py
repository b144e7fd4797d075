"""Opening files of strangers in a process of its own, with a limit of memory and of time.

A model file of a few bytes can ask for any amount of memory, and a library that reads it can crash.
The process that does so first is small, and ends with the file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

import paragonsr2.errors as package_errors
from paragonsr2.errors import ParagonError, WeightsError

try:
    import resource
except ImportError:  # Windows has none; the limit of time remains
    resource = None

#: Bytes of memory that opening a foreign model may take.
MEMORY = 4 << 30

#: Seconds that opening a foreign model may take.
SECONDS = 60

TRUST = "--trust-model lifts this for files that you trust"


def run_limited(module: str, *arguments: str, label: str, content: bytes = b"") -> Any:
    """Run a module of this package in a limited process; the module calls :func:`answer`.

    Args:
        module: to run, such as ``paragonsr2.weights.graph_check``.
        arguments: of its command line.
        label: name of the model, for messages.
        content: its standard input.

    Returns:
        What the module answered.

    Raises:
        ParagonError: what the module raised.
        WeightsError: it exceeded a limit, or crashed.
    """
    # The child takes modules from where this process does, and from no other place.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, *arguments],
            input=content,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": path, "ORT_DISABLE_TELEMETRY": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"{label} takes longer than {SECONDS} s to open; {TRUST}") from error
    except OSError as error:
        raise WeightsError(
            f"no process can be started to open {label} in: {error.strerror or error}; {TRUST}"
        ) from error
    try:
        told = cast(Mapping[str, Any], json.loads(done.stdout))
    except ValueError as error:
        raise WeightsError(
            f"{label} breaks the library that opens it (exit status {done.returncode}), or takes "
            f"more than {MEMORY >> 30} GB; {TRUST}"
        ) from error
    if "error" in told:
        kind = getattr(package_errors, str(told["error"]), WeightsError)
        raise ParagonError.__new__(kind, str(told["message"]))
    return told["answer"]


def answer(work: Callable[[], object]) -> None:
    """In the limited process: do the work, and print its answer or its error as JSON."""
    if resource is not None:
        # Not the address space, of which libraries reserve more than they use.
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        memory = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
        resource.setrlimit(resource.RLIMIT_DATA, (memory, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        told = {"answer": work()}
    except ParagonError as error:
        told = {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        told = {"error": "WeightsError", "message": too_much_memory("the file")}
    print(json.dumps(told))


def too_much_memory(label: str) -> str:
    """The message about a model that exceeds the limit of memory."""
    return f"{label} asks for more than {MEMORY >> 30} GB of memory; {TRUST}"
