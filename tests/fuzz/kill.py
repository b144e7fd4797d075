"""Kill a folder job at random moments: no output may ever be partial, and it must go on.

::

    PYTHONPATH=tests python -m fuzz.kill --kills 50 --result results/robustness/kill_images.json

After every kill each output that is there is compared with that of a run in peace, byte for byte.
A last run must finish the folder, keep what was finished before, and leave no temporary file.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from paragonsr2.files import is_temporary
from paragonsr2.images.header import Picture
from paragonsr2.images.writing import write_picture

NAMES = ("a.png", "b.jpg", "c.tif", "d.webp", "e.png", "f.jpg", "g.tif", "h.webp")


def _command(folder: Path, output: Path) -> list[str]:
    return [
        sys.executable, "-m", "paragonsr2", "upscale", str(folder), "-o", str(output),
        "--model", "magic", "--tile", "64",
    ]  # fmt: skip


def _start(folder: Path, output: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        _command(folder, output), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _wrong(output: Path, wanted: dict[str, bytes]) -> list[str]:
    """Names of final files that are not what a run in peace makes."""
    return [
        path.name
        for path in output.glob("*")
        if not is_temporary(path) and wanted.get(path.name) != path.read_bytes()
    ]


def main() -> None:
    """Kill, compare, and write the result file; exit 1 if a file was ever wrong."""
    from paragonsr2.measure.machine import write_result

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side", type=int, default=160, help="of the pictures, in pixels")
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    rng, noise = random.Random(options.seed), np.random.default_rng(options.seed)
    corrupt: list[str] = []
    interrupted = temporary = finished_early = 0
    with tempfile.TemporaryDirectory() as name:
        folder, output = Path(name, "in"), Path(name, "out")
        for file in NAMES:
            pixels = noise.integers(0, 255, (options.side, options.side, 3), np.uint8)
            write_picture(folder / file, Picture(pixels))
        peace = Path(name, "peace")
        subprocess.run(_command(folder, peace), check=True, capture_output=True)
        wanted = {path.name: path.read_bytes() for path in peace.iterdir()}
        for _ in range(options.kills):
            if len(list(output.glob("[a-z]*"))) == len(NAMES):
                for path in output.iterdir():
                    path.unlink()
            process = _start(folder, output)
            assert process.stdout is not None
            # From the first finished file on, the job is in the middle of others.
            process.stdout.readline()
            time.sleep(rng.random() * 0.15)
            process.kill()
            process.stdout.close()
            if process.wait() < 0:
                interrupted += 1
            else:
                finished_early += 1
            temporary += sum(is_temporary(path) for path in output.glob(".*"))
            corrupt += _wrong(output, wanted)
        subprocess.run(_command(folder, output), check=True, capture_output=True)
        corrupt += _wrong(output, wanted)
        complete = {path.name for path in output.glob("[a-z]*")} == set(NAMES)
        left = [path.name for path in output.glob(".*")]
    result = {
        "what": "kill -9 of a folder job at random moments, outputs compared byte for byte",
        "kills": options.kills,
        "hit_while_running": interrupted,
        "had_just_finished": finished_early,
        "temporary_files_seen_after_kills": temporary,
        "partial_or_corrupt_outputs": len(corrupt),
        "complete_after_the_last_run": complete,
        "temporary_files_left_by_the_last_run": len(left),
    }
    print(json.dumps(result, indent=1))
    if options.result:
        write_result(options.result, result)
    sys.exit(1 if corrupt or left or not complete else 0)


if __name__ == "__main__":
    main()
