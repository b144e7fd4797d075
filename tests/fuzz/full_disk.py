"""Fill the disk under a training run: one line must say so, and the last checkpoints must be whole.

As root, for the small disk is a file system in memory that is mounted for the purpose::

    PYTHONPATH=tests python -m fuzz.full_disk --result results/robustness/full_disk.json

Again and again, while the run goes on, the disk is filled up to a random rest that has no room
for another state. The run must end by an error of one line; then there is room again. At the end
all losses and the whole state must be those of a run that always had room.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.kill_training import finish, losses, prepare, read_state, same, start, unreadable
from paragonsr2.files import is_temporary
from paragonsr2.measure.machine import write_result
from paragonsr2.training.state import STATE_FILE

DISK = 24 * 2**20
BALLAST = "ballast"


def fill(disk: Path, rest: int) -> None:
    """Leave ``rest`` bytes."""
    size = shutil.disk_usage(disk).free - rest
    with (disk / BALLAST).open("wb") as file:
        for _ in range(size // 2**16):
            file.write(bytes(2**16))


def main() -> None:
    """Fill, run, make room, compare, and write the result file; exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    wrong: list[str] = []
    said: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder, disk = Path(name), Path(name) / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", disk], check=True)
        try:
            config = prepare(folder, steps=20 * options.times)
            peace, war = folder / "peace", disk / "war"
            finish(config, peace)
            needed = (peace / STATE_FILE).stat().st_size
            for _ in range(options.times):
                steps = rng.randint(1, 12)
                with start(config, war) as process:
                    for line in process.stderr:
                        steps -= line.startswith("step")
                        if steps < 1:
                            break
                    # Squared, so that the rest is often too small for anything.
                    fill(disk, int(needed * rng.random() ** 2))
                    rest = process.stderr.read().splitlines()
                said.append(rest[-1].replace(str(disk), "DISK"))
                others = [line for line in rest[:-1] if not line.startswith("step")]
                if process.returncode != 1 or "No space left" not in rest[-1] or others:
                    wrong += rest
                wrong += unreadable(war)
                wrong += [str(path) for path in war.glob(".*") if is_temporary(path)]
                (disk / BALLAST).unlink()
            finish(config, war)
            same_losses = losses(war) == losses(peace)
            same_state = same(read_state(war), read_state(peace))
        finally:
            subprocess.run(["umount", disk], check=True)
    result = {
        "what": "a training run on a disk that is filled up to a random rest, again and again",
        "times": options.times,
        "bytes_of_a_state": needed,
        "said": said,
        "wrong": wrong,
        "same_losses_as_with_room": same_losses,
        "same_state_as_with_room": same_state,
    }
    print(result)
    if options.result:
        write_result(options.result, result)
    sys.exit(0 if same_losses and same_state and not wrong else 1)


if __name__ == "__main__":
    main()
