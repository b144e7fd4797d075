"""What reading and writing cost a folder of photos: the whole job against its network alone.

Writes ``results/speed/folder_overlap.json``. The photos are cut from the training pictures. All
of a round is measured in turn, so that good and bad moments of the machine are shared, and the
median of the rounds is reported.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from paragonsr2.measure.machine import write_result
from paragonsr2.pixels.convert import to_float
from paragonsr2.pixels.files import Picture, read_picture, write_picture
from paragonsr2.pixels.formats import READABLE
from paragonsr2.upscale.job import run_tasks
from paragonsr2.upscale.line import Task
from paragonsr2.upscale.upscaler import Upscaler

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "speed" / "folder_overlap.json"
HEIGHT, WIDTH = 480, 640


def cut_photos(sources: Path, folder: Path, number: int, suffix: str) -> list[Path]:
    """Write ``number`` crops from the middle of the pictures in ``sources``."""
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
    raise SystemExit(f"{sources} has only {len(made)} pictures of {WIDTH}x{HEIGHT} or more")


def measure(photos: list[Path], folder: Path, upscaler: Upscaler) -> dict[str, float]:
    """One round: seconds for reading, network, writing and the whole job."""
    started = time.perf_counter()
    pictures = [read_picture(photo) for photo in photos]
    reading = time.perf_counter() - started

    inputs = [to_float(picture.pixels) for picture in pictures]
    started = time.perf_counter()
    for x in inputs:
        upscaler.backend.run(x)
    network = time.perf_counter() - started

    tasks = [Task(photo, folder / photo.name) for photo in photos]
    results = [Picture(upscaler(picture.pixels)) for picture in pictures]
    started = time.perf_counter()
    for task, result in zip(tasks, results, strict=True):
        write_picture(task.target, result)
    writing = time.perf_counter() - started

    started = time.perf_counter()
    outcomes = list(run_tasks(tasks, upscaler, overwrite=True))
    whole = time.perf_counter() - started
    if any(outcome.status != "done" for outcome in outcomes):
        raise SystemExit("a photo failed")
    return {"reading": reading, "network": network, "writing": writing, "whole": whole}


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path, help="a folder of photos")
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    upscaler = Upscaler("realtime", 2, device="cpu")
    found: dict[str, dict[str, object]] = {}
    for suffix in (".jpg", ".png"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            photos = cut_photos(options.sources, folder, options.photos, suffix)
            measure(photos[:5], folder / "out", upscaler)  # warm-up
            rounds = [measure(photos, folder / "out", upscaler) for _ in range(options.rounds)]
        median = {key: float(np.median([one[key] for one in rounds])) for key in rounds[0]}
        bound = max(median["network"], median["writing"])
        found[suffix[1:]] = {
            "seconds": {key: round(value, 4) for key, value in median.items()},
            "whole_over_network": round(median["whole"] / median["network"], 4),
            "whole_over_the_larger_of_network_and_writing": round(median["whole"] / bound, 4),
        }
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
