"""What a measurement ran on: written into every result file."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paragonsr2.files import write_atomic
from paragonsr2.version import __version__

_PACKAGES = ("av", "numpy", "onnxruntime", "opencv-python-headless", "pyvips", "torch")


def describe_machine() -> dict[str, object]:
    """Processor, cores, memory and operating system; no name that identifies the machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def describe_versions() -> dict[str, str]:
    """Versions of this package and of those that compute."""
    found = {"paragonsr2": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of the source tree that runs, ``-dirty`` if changed; empty outside of git."""
    folder = Path(__file__).resolve().parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip()


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result file: ``result`` with machine, versions, commit and date.

    Raises:
        OutputError: the file cannot be written.
    """
    whole = {
        **result,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_atomic(path, (json.dumps(whole, indent=1) + "\n").encode())


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 0
