"""Kill a video job at random moments and check what it leaves and how it resumes.

Writes ``results/robustness/kill_videos.json``. A job is killed with SIGKILL after a random time and
restarted until it ends. Its result must equal that of an undisturbed job, byte for byte. Then
the next job starts, until the requested number of kills is reached.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from paragonsr2.clips.segments import work_folder
from paragonsr2.measure.machine import write_result

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from clips import irregular, make_clip  # noqa: E402

RESULT = ROOT / "results" / "robustness" / "kill_videos.json"
SEGMENT = 24

# Prints the number of finished frames after each frame.
JOB = f"""
import sys
from pathlib import Path
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import VideoOptions, upscale_video
say = lambda state: print(state.done, flush=True)
result = upscale_video(
    Path(sys.argv[1]), Path(sys.argv[2]), Upscaler("magic", 2),
    VideoOptions(segment={SEGMENT}, preset="veryfast"), progress=say,
)
print(result.resumed, flush=True)
"""


def start(source: Path, target: Path) -> subprocess.Popen[str]:
    """Start a job in its own process."""
    return subprocess.Popen(
        [sys.executable, "-c", JOB, str(source), str(target)], stdout=subprocess.PIPE, text=True
    )


@dataclass
class Tally:
    """What became of the jobs.

    Attributes:
        kills: jobs that were killed.
        finished: jobs that ended by themselves.
        identical: finished jobs whose result equals that of an undisturbed job.
        partial: kills that left an incomplete result.
        killed: kills by the progress of the job.
        repeated: most finished frames that a kill lost, so that they are computed twice.
    """

    kills: int = 0
    finished: int = 0
    identical: int = 0
    partial: int = 0
    killed: Counter[str] = field(
        default_factory=lambda: Counter(
            before_any_segment=0, between_segments=0, after_the_last_segment=0
        )
    )
    repeated: int = 0

    def add_finished(self, target: Path, wanted: bytes) -> None:
        """Count a job that ended, and remove its result."""
        self.finished += 1
        self.identical += target.read_bytes() == wanted
        target.unlink()

    def add_killed(self, target: Path, wanted: bytes, done: int, frames: int) -> None:
        """Count a job that was killed after ``done`` of ``frames``, and remove its result."""
        self.kills += 1
        kept = SEGMENT * len(list(work_folder(target).glob("[0-9]*.npz")))
        if target.exists():
            # The job was killed after the result was in place.
            self.partial += target.read_bytes() != wanted
            target.unlink()
            return
        self.repeated = max(self.repeated, done - kept)
        if kept >= frames:
            self.killed["after_the_last_segment"] += 1
        else:
            self.killed["between_segments" if kept else "before_any_segment"] += 1


def kill_jobs(folder: Path, kills: int, rng: random.Random, stamps: list[int]) -> Tally:
    """Start and kill jobs in ``folder`` until there were ``kills`` kills."""
    source, whole, target = (folder / name for name in ("clip.mkv", "whole.mkv", "out.mkv"))
    make_clip(source, stamps, sounds=2, subtitles=True, chapters=True)
    started = time.perf_counter()
    start(source, whole).communicate()
    usual = time.perf_counter() - started
    wanted = whole.read_bytes()
    tally = Tally()
    while tally.kills < kills:
        job = start(source, target)
        # The shorter range hits the start more often, when the work folder is read.
        timer = threading.Timer(rng.uniform(0, usual * rng.choice((0.5, 1.0))), job.kill)
        timer.start()
        printed = job.communicate()[0].split()
        timer.cancel()
        if job.returncode == 0:
            tally.add_finished(target, wanted)
        else:
            tally.add_killed(target, wanted, int(printed[-1]) if printed else 0, len(stamps))
    return tally


def main() -> None:
    """Run the kills and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    stamps = irregular(240)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tally = kill_jobs(folder, options.kills, random.Random(options.seed), stamps)
        leftovers = len(list(folder.glob(".*")))
    result = {
        "frames": len(stamps),
        "segment": SEGMENT,
        "kills": tally.kills,
        "runs_to_the_end": tally.finished,
        "identical": tally.identical,
        "partial_files": tally.partial,
        "killed": dict(tally.killed),
        "most_frames_done_twice": tally.repeated,
        "folders_left_by_the_last_kill": leftovers,
    }
    print(json.dumps(result, indent=1))
    write_result(options.result, result)
    if tally.identical != tally.finished or tally.partial:
        raise SystemExit("the result of a killed job differs from that of an undisturbed one")
    if tally.repeated > SEGMENT:
        raise SystemExit(f"{tally.repeated} frames, more than a segment, were computed twice")


if __name__ == "__main__":
    main()
