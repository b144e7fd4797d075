"""Play a real clip on the static page, in WebAssembly, and count the frames that it enlarges.

Writes ``results/speed/web_video.json``: Realtime x2 in a headless Chromium, with the threads of an
isolated page and with the one thread of any other. Decoding and showing, in software here, are part
of it. The processor time of all Chromium's processes tells the cost of a frame even where other
programs take their part of the machine; how much those took is in the result too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

from benchmark.web_page import chromium, open_page, served
from paragonsr2.measure.machine import write_result
from paragonsr2.web.site import page_files, write_page

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from clips import make_clip, regular  # noqa: E402

RESULT = ROOT / "results" / "speed" / "web_video.json"
CLIP = ROOT.parent / "shared" / "data" / "video" / "bikes.mp4"
SIZES = ((320, 136), (640, 272))
_WARM_UP = 3


@dataclass(frozen=True)
class Moment:
    """What has happened until now.

    Attributes:
        frames: that the page has shown.
        clock: in seconds.
        own: processor seconds of Chromium.
        busy: processor seconds of the whole machine.
    """

    frames: int
    clock: float
    own: float
    busy: float


def smaller(folder: Path, width: int, height: int) -> Path:
    """The clip in another size."""
    with av.open(str(CLIP)) as clip:
        frames = [
            frame.reformat(width, height, format="rgb48le").to_ndarray()
            for frame in clip.decode(video=0)
        ]
    path = folder / f"{width}x{height}.mp4"

    def picture(index: int, *_: int) -> np.ndarray:
        return frames[index]

    options = {"crf": "18"}
    make_clip(path, regular(len(frames)), size=(width, height), pictures=picture, options=options)
    return path


def now(page: Any) -> Moment:
    """Look at the page, at Chromium and at the machine."""
    own = 0.0
    for process in psutil.Process().children(recursive=True):
        times = process.cpu_times()
        own += times.user + times.system
    times = psutil.cpu_times()
    busy = sum(times) - times.idle - times.iowait - times.guest - times.guest_nice
    frames = int(page.get_attribute("body", "data-frames"))
    return Moment(frames, time.perf_counter(), own, busy)


def play(page: Any, clip: Path, seconds: float) -> dict[str, object]:
    """Play a clip for some time, once it runs."""
    page.set_input_files("#chooser", str(clip))
    page.wait_for_selector("[data-state=playing]", timeout=120_000)
    while int(page.get_attribute("body", "data-frames")) < _WARM_UP:
        time.sleep(0.1)
    begin = now(page)
    time.sleep(seconds)
    end = now(page)
    frames, span = end.frames - begin.frames, end.clock - begin.clock
    own, busy = end.own - begin.own, end.busy - begin.busy
    return {
        "frames": frames,
        "seconds": round(span, 2),
        "frames_per_second": round(frames / span, 2),
        "processor_ms_per_frame": round(1000 * own / max(frames, 1), 1),
        "cores_of_chromium": round(own / span, 2),
        "cores_of_others": round(max(busy - own, 0.0) / span, 2),
        "shown": page.inner_text("#status"),
    }


def main() -> None:
    """Measure all sizes with and without threads, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    seconds = parser.parse_args().seconds
    rows: list[dict[str, object]] = []
    with (
        tempfile.TemporaryDirectory() as name,
        chromium() as browser,
    ):
        folder = Path(name)
        write_page(folder / "page")
        clips = {size: smaller(folder, *size) for size in SIZES}
        with served(folder / "page") as address:
            for isolated in (True, False):
                # Without its service worker, the page is like one on any server.
                workers = "allow" if isolated else "block"
                context = browser.new_context(service_workers=workers)
                page = open_page(context, address) if isolated else context.new_page()
                page.goto(address)
                threads = page.evaluate("crossOriginIsolated ? navigator.hardwareConcurrency : 1")
                for size, clip in clips.items():
                    row = {"size": size, "threads": threads} | play(page, clip, seconds)
                    print(json.dumps(row), flush=True)
                    rows.append(row)
                context.close()
        version = browser.version
    write_result(
        RESULT,
        {
            "model": "realtime",
            "scale": 2,
            "clip": CLIP.name,
            "chromium": version,
            "page_bytes": sum(map(len, page_files().values())),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
