"""Upscale ten minutes of video; check that nothing is lost and that memory stays flat.

Writes ``results/speed/video_soak.json``. The clip repeats ``bikes.mp4`` in small frames, with an
irregular frame rate, two audio tracks and subtitles.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import psutil

from paragonsr2.measure.machine import write_result

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from clips import irregular, make_clip  # noqa: E402

RESULT = ROOT / "results" / "speed" / "video_soak.json"
CLIP = ROOT.parent / "shared" / "data" / "video" / "bikes.mp4"


def small_pictures(width: int, height: int) -> list[np.ndarray]:
    """The frames of the clip, downscaled."""
    with av.open(str(CLIP)) as clip:
        return [
            frame.reformat(width, height, format="rgb48le").to_ndarray()
            for frame in clip.decode(video=0)
        ]


def times(path: Path) -> dict[int, list[float]]:
    """Presentation times of all packets in seconds, sorted, by stream."""
    found: dict[int, list[float]] = {}
    with av.open(str(path)) as clip:
        for packet in clip.demux():
            if packet.pts is not None:
                found.setdefault(packet.stream.index, []).append(
                    float(packet.pts * packet.time_base)
                )
    return {index: sorted(stamps) for index, stamps in found.items()}


def watch(command: list[str], frames: int) -> tuple[list[tuple[float, int]], int]:
    """Run the command.

    Returns:
        Pairs of finished frames and resident bytes, in order; and the most bytes of all.
    """
    job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None  # it is a pipe
    process = psutil.Process(job.pid)
    seen: list[tuple[float, int]] = []
    for line in job.stdout:
        event = json.loads(line)
        if event["event"] == "progress":
            seen.append((event["share"] * frames, process.memory_info().rss))
    if job.wait() != 0:
        raise SystemExit(f"the command failed with {job.returncode}")
    return seen, max(rss for _, rss in seen)


def make_source(path: Path, size: tuple[int, int], minutes: float) -> int:
    """Write the clip; returns its number of frames."""
    pictures = small_pictures(*size)

    def frame(index: int, *_: object) -> np.ndarray:
        return pictures[index % len(pictures)]

    # irregular() averages 23.3 frames per second.
    stamps = irregular(int(minutes * 60 * 12800 / 549.5))
    make_clip(path, stamps, size=size, sounds=2, subtitles=True, chapters=True, pictures=frame)
    return len(stamps)


def worst_shifts(before: dict[int, list[float]], after: dict[int, list[float]]) -> list[float]:
    """The largest shift of a presentation time in each stream, in seconds.

    Raises:
        SystemExit: packets are missing or were added.
    """
    counts = [[len(stamps) for stamps in times.values()] for times in (before, after)]
    if counts[0] != counts[1]:
        raise SystemExit(f"the numbers of packets differ: {counts[0]} before, {counts[1]} after")
    return [
        max(abs(a - b) for a, b in zip(before[index], after[index], strict=True))
        for index in before
    ]


def memory_use(seen: list[tuple[float, int]], peak: int, frames: int) -> dict[str, float]:
    """Peak and trend of the resident memory."""
    # At first, engines and allocators fill their pools.
    settled = np.array([row for row in seen if row[0] > 0.2 * frames])
    slope = np.polyfit(settled[:, 0], settled[:, 1], 1)[0] * 1000 / 2**20
    return {
        "peak_mib": round(peak / 2**20, 1),
        "at_20_percent_mib": round(settled[0, 1] / 2**20, 1),
        "at_end_mib": round(settled[-1, 1] / 2**20, 1),
        "slope_mib_per_1000_frames": round(float(slope), 4),
        "samples": len(settled),
    }


def main() -> None:
    """Make the clip, upscale it, compare and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--model", default="realtime")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 36))
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    width, height = options.size
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "soak.mkv", Path(folder) / "soak_x2.mkv"
        frames = make_source(source, (width, height), options.minutes)
        command = [
            sys.executable, "-m", "paragonsr2", "upscale", str(source), "-o", str(target),
            "--model", options.model, "--preset", "veryfast", "--events",
        ]  # fmt: skip
        seen, peak = watch(command, frames)
        before, after = times(source), times(target)
    shifts = worst_shifts(before, after)
    result = {
        "clip": {"size": [width, height], "frames": frames, "minutes": options.minutes},
        "model": options.model,
        "packets_by_stream": [len(stamps) for stamps in after.values()],
        "worst_shift_ms_by_stream": [round(1e3 * value, 4) for value in shifts],
        "memory": memory_use(seen, peak, frames),
    }
    print(json.dumps(result, indent=1))
    write_result(options.result, result)


if __name__ == "__main__":
    main()
