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


def main() -> None:
    """Run the kills and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    count = {"kills": 0, "runs_to_the_end": 0, "identical": 0, "partial_files": 0}
    where = {"before_any_segment": 0, "between_segments": 0, "after_the_last_segment": 0}
    most_lost = 0
    with tempfile.TemporaryDirectory() as folder:
        source, whole = Path(folder) / "clip.mkv", Path(folder) / "whole.mkv"
        target = Path(folder) / "out.mkv"
        stamps = irregular(240)
        make_clip(source, stamps, sounds=2, subtitles=True, chapters=True)
        started = time.perf_counter()
        start(source, whole).communicate()
        usual = time.perf_counter() - started
        wanted = whole.read_bytes()
        while count["kills"] < options.kills:
            job = start(source, target)
            # The shorter range hits the start more often, when the work folder is read.
            timer = threading.Timer(rng.uniform(0, usual * rng.choice((0.5, 1.0))), job.kill)
            timer.start()
            said = job.communicate()[0].split()
            timer.cancel()
            if job.returncode == 0:
                count["runs_to_the_end"] += 1
                count["identical"] += target.read_bytes() == wanted
                target.unlink()
                continue
            count["kills"] += 1
            segments = len(list(work_folder(target).glob("[0-9]*.npz")))
            if target.exists():
                # The job was killed after the result was in place.
                count["partial_files"] += target.read_bytes() != wanted
                target.unlink()
                continue
            most_lost = max(most_lost, int(said[-1]) - segments * SEGMENT if said else 0)
            last = segments * SEGMENT >= len(stamps)
            where[
                "after_the_last_segment" if last
                else "between_segments" if segments else "before_any_segment"
            ] += 1  # fmt: skip
        leftovers = [path.name for path in Path(folder).glob(".*")]
    result = {
        "frames": len(stamps),
        "segment": SEGMENT,
        **count,
        "killed": where,
        "most_frames_done_twice": most_lost,
        "folders_left_by_the_last_kill": len(leftovers),
    }
    print(json.dumps(result, indent=1))
    write_result(options.result, result)
    if count["identical"] != count["runs_to_the_end"] or count["partial_files"]:
        raise SystemExit("the result of a killed job differs from that of an undisturbed one")
    if most_lost > SEGMENT:
        raise SystemExit(f"{most_lost} frames, more than a segment, were computed twice")


if __name__ == "__main__":
    main()
