"""Environment variables of libraries: for the whole process of a command, or for one call.

The environment of a host program that imports the package belongs to the host. A command owns its
process, so it sets all of them when it starts; the processes that it starts inherit them.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

_OF_A_COMMAND = {
    # ONNX Runtime reports its use to Microsoft unless this is set before it is imported.
    "ORT_DISABLE_TELEMETRY": "1",
    # libvips prints its warnings to stderr unless this is set before it is loaded.
    "VIPS_WARNING": "0",
    # SVT-AV1 prints its settings to stderr unless this is set before its first use.
    "SVT_LOG": "1",
}


def set_up_command() -> None:
    """Set the variables of a command, except those that the user has set."""
    for name, value in _OF_A_COMMAND.items():
        os.environ.setdefault(name, value)


@contextmanager
def variable(name: str, value: str) -> Generator[None]:
    """Set one environment variable for the time of a ``with`` statement."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def without_telemetry() -> Generator[None]:
    """Import ONNX Runtime in here, so that it reports nothing to its makers."""
    with variable("ORT_DISABLE_TELEMETRY", "1"):
        yield
