"""Run a model in VapourSynth, whose wheels want Python 3.12: in another interpreter, if need be.

Run as a program, inside that interpreter, it enlarges one picture from a file to a file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
#: Made by ``make vapoursynth``.
ENVIRONMENT = ROOT / ".venv-vapoursynth" / "bin" / "python"


class Enlarged(NamedTuple):
    """What :func:`enlarge` returns.

    Attributes:
        picture: ``(1, 3, H * scale, W * scale)``.
        ms: median processor time of a frame, in milliseconds, after a warm-up; 0 if not measured.
    """

    picture: npt.NDArray[np.float32]
    ms: float


def interpreter() -> str | None:
    """A Python in which VapourSynth is installed; None if there is none."""
    if importlib.util.find_spec("vapoursynth") is not None:
        return sys.executable
    return str(ENVIRONMENT) if ENVIRONMENT.exists() else None


def versions(python: str) -> dict[str, str]:
    """Versions of VapourSynth and of the engines' filters that are installed there."""
    names = ["vapoursynth", *(f"vapoursynth-mlrt-{name}" for name in ("ort", "ov", "ncnn"))]
    code = (
        "import importlib.metadata as m, json\n"
        f"there = {{d.name.lower().replace('_', '-'): d.version for d in m.distributions()}}\n"
        f"print(json.dumps({{n: there[n] for n in {names} if n in there}}))"
    )
    ran = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def enlarge(
    python: str,
    x: npt.NDArray[np.float32],
    model: str,
    scale: int,
    backend: str,
    calls: int = 0,
    **options: Any,
) -> Enlarged:
    """Enlarge one RGB picture by ``integrations/vapoursynth``.

    Args:
        python: see :func:`interpreter`.
        x: ``(1, 3, H, W)`` in 0..1.
        model: as ``--model`` takes it.
        scale: of the model.
        backend: ``ort``, ``ov`` or ``ncnn``.
        calls: how often to measure the time.
        options: of the filter.

    Raises:
        subprocess.CalledProcessError: the filter failed; its message is in ``stderr``.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "given.npy"), Path(folder, "made.npy")
        np.save(given, x[0])
        asked = [str(given), str(made), model, str(scale), backend, str(calls)]
        paths = [str(ROOT / "src"), str(ROOT / "integrations" / "vapoursynth")]
        ran = subprocess.run(
            [python, __file__, *asked, json.dumps(options)], check=True, capture_output=True,
            text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        return Enlarged(np.load(made)[None], float(ran.stdout.split()[-1]))


def _inside(
    given: str, made: str, model: str, scale: str, backend: str, calls: str, options: str
) -> None:
    """What the other interpreter does."""
    vs: Any = importlib.import_module("vapoursynth")
    function: Any = importlib.import_module("paragonsr2_vs").enlarge
    planes = np.load(given)
    _, height, width = planes.shape
    length = 1 + int(calls)
    empty = vs.core.std.BlankClip(format=vs.RGBS, width=width, height=height, length=length)

    def filled(n: int, f: Any) -> Any:  # noqa: ARG001 - VapourSynth passes both by name
        frame = f.copy()
        for index, plane in enumerate(planes):
            np.asarray(frame[index])[:] = plane
        return frame

    clip = empty.std.ModifyFrame(empty, filled)
    large = function(clip, model, int(scale), backend=backend, **json.loads(options))
    frame = large.get_frame(0)
    np.save(made, np.stack([np.asarray(frame[index]) for index in range(3)]))
    seconds = list[float]()
    for n in range(1, length):
        started = time.process_time()
        large.get_frame(n)
        seconds.append(time.process_time() - started)
    print(round(statistics.median(seconds) * 1e3, 1) if seconds else 0.0)


if __name__ == "__main__":
    _inside(*sys.argv[1:])
