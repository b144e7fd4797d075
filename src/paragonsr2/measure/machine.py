"""Result files, and the description of the machine that every one of them carries."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from paragonsr2.files import write_atomic
from paragonsr2.version import __version__

#: Flags of a processor by what they mean for a network's speed; the first that it has is named.
_INSTRUCTIONS = {
    "avx512_bf16": "AVX-512 and bfloat16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "asimd": "NEON",
}
_PACKAGES = ("av", "numpy", "onnxruntime", "opencv-python-headless", "pyvips", "ray", "torch")


def describe_machine() -> dict[str, object]:
    """Processor, cores, memory, system and Python; nothing that identifies the machine.

    ``instructions`` is the widest kind of vectors that it computes with; None if unknown.
    """
    facts = _processor_facts()
    flags = (facts.get("flags") or facts.get("Features", "")).split()
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "instructions": next((name for flag, name in _INSTRUCTIONS.items() if flag in flags), None),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def describe_versions() -> dict[str, str]:
    """Versions of this package and of the libraries that do the computing."""
    found = {"paragonsr2": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of the running source tree, ``-dirty`` if it has changes; empty outside git."""
    folder = Path(__file__).resolve().parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip()


def write_result(path: Path, result: Mapping[str, Any], report: str | None = None) -> None:
    """Write ``result`` as JSON, with the machine, versions, commit and date added.

    Args:
        path: the ``.json`` file, written whole or not at all.
        result: the findings.
        report: the same for people, in Markdown; written beside it as ``.md``.

    Raises:
        OutputError: a file cannot be written.
    """
    whole = {
        **result,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_atomic(path, (json.dumps(whole, indent=1) + "\n").encode())
    if report is not None:
        write_atomic(path.with_suffix(".md"), report.encode())


def machine_line(machine: Mapping[str, Any]) -> str:
    """What :func:`describe_machine` found, in one line; older results know less of it."""
    instructions = machine.get("instructions")
    processor = f"{machine['processor']}{f' with {instructions}' if instructions else ''}"
    return f"{processor}, {machine['cores']} cores, {machine['memory_gib']} GiB"


def _processor_facts() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
