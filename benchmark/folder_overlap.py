"""Measure what reading and writing add to the time of the network, for a folder of photos.

Writes ``results/speed/folder_overlap.json``. The photos are crops of the training images. Every
round measures all parts in turn, so that they see the same load of the machine; the median over
the rounds is reported.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from paragonsr2.arrays.convert import to_float
from paragonsr2.images.formats import READABLE
from paragonsr2.images.header import Picture
from paragonsr2.images.reading import read_picture
from paragonsr2.images.writing import write_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.upscale.job import run_tasks
from paragonsr2.upscale.resources import cores
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "speed" / "folder_overlap.json"
HEIGHT, WIDTH = 480, 640

T = TypeVar("T")


def cut_photos(sources: Path, folder: Path, number: int, suffix: str) -> list[Path]:
    """Write ``number`` crops from the centres of the images in ``sources``."""
    made: list[Path] = []
    for source in sorted(path for path in sources.rglob("*") if path.suffix in READABLE):
        pixels = read_picture(source).pixels
        top, left = (pixels.shape[0] - HEIGHT) // 2, (pixels.shape[1] - WIDTH) // 2
        if top < 0 or left < 0 or pixels.shape[2] != 3:
            continue
        made.append(folder / f"{len(made):03d}{suffix}")
        write_picture(made[-1], Picture(pixels[top : top + HEIGHT, left : left + WIDTH]))
        if len(made) == number:
            return made
    raise SystemExit(f"{sources} has only {len(made)} images of at least {WIDTH}x{HEIGHT} pixels")


@dataclass(frozen=True)
class Spent:
    """Seconds of wall time, and of processor time, which excludes other programs."""

    wall: float
    processor: float


def measure(photos: list[Path], folder: Path, upscaler: Upscaler) -> dict[str, Spent]:
    """Measure one round: reading, network, writing and the whole job.

    The network is measured twice: with all cores on each photo, and as in the job, with one photo
    per core.
    """
    spent: dict[str, Spent] = {}

    def timed(name: str, work: Callable[[], list[T]]) -> list[T]:
        started = time.perf_counter(), time.process_time()
        made = work()
        spent[name] = Spent(time.perf_counter() - started[0], time.process_time() - started[1])
        return made

    pictures = timed("reading", lambda: [read_picture(photo) for photo in photos])
    inputs = [to_float(picture.pixels) for picture in pictures]
    timed("network", lambda: [upscaler.backend.run(x) for x in inputs])
    twin = upscaler.divided(cores())
    if twin is not None:
        with ThreadPoolExecutor(cores()) as pool:
            timed("network side by side", lambda: [*pool.map(twin.backend.run, inputs)])
    tasks = [Task(photo, folder / photo.name) for photo in photos]
    results = [Picture(upscaler(picture.pixels)) for picture in pictures]
    pairs = list(zip(tasks, results, strict=True))
    timed("writing", lambda: [write_picture(task.target, result) for task, result in pairs])
    outcomes = timed("whole", lambda: list(run_tasks(tasks, upscaler, overwrite=True)))
    if any(outcome.status != "done" for outcome in outcomes):
        raise SystemExit("a photo failed")
    return spent


def medians(rounds: list[dict[str, Spent]], kind: str) -> dict[str, float]:
    """The median over the rounds of ``wall`` or ``processor`` seconds, by part."""
    return {
        part: round(float(np.median([getattr(one[part], kind) for one in rounds])), 4)
        for part in rounds[0]
    }


def measure_format(
    sources: Path, suffix: str, photos: int, rounds: int, upscaler: Upscaler
) -> dict[str, object]:
    """Measure the photos as files with this suffix: one entry of the result file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = cut_photos(sources, folder, photos, suffix)
        measure(files[:5], folder / "out", upscaler)  # warm-up
        measured = [measure(files, folder / "out", upscaler) for _ in range(rounds)]
    wall = medians(measured, "wall")
    quickest = min(seconds for part, seconds in wall.items() if part.startswith("network"))
    return {
        "seconds": wall,
        "whole_over_network": round(wall["whole"] / wall["network"], 4),
        "whole_over_the_quickest_network": round(wall["whole"] / quickest, 4),
        "processor_seconds": medians(measured, "processor"),
    }


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path, help="folder of photos")
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    upscaler = Upscaler("realtime", 2, device="cpu")
    found: dict[str, dict[str, object]] = {}
    for suffix in (".jpg", ".png"):
        found[suffix[1:]] = measure_format(
            options.sources, suffix, options.photos, options.rounds, upscaler
        )
        print(suffix, found[suffix[1:]])
    write_result(
        options.result,
        {
            "what": f"{options.photos} photos of {WIDTH}x{HEIGHT}, realtime x2",
            "backend": upscaler.backend.name,
            "rounds": options.rounds,
            "formats": found,
        },
    )


if __name__ == "__main__":
    main()
