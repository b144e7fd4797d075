"""Where the time of a video goes: ``results/speed/video_stages.json``.

    PYTHONPATH=src:. python -m benchmark.video_stages

The clip in 640x360 is enlarged to 1280x720 with Realtime, in ONNX Runtime and, if the processor
computes in bfloat16, in OpenVINO in bfloat16 and in INT8. First frame by frame on one thread, each
stage by its processor time; then by the command with all cores, by the clock, steadied and not.
Nothing else should run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import av
import cv2
from av.video.frame import VideoFrame

from paragonsr2.arrays.pixels import FloatNCHW, Pixels, to_8_bits, to_16_bits
from paragonsr2.clips.clip import probe
from paragonsr2.clips.encode import SegmentEncoder
from paragonsr2.clips.frames import Converter, read_frames
from paragonsr2.measure.machine import write_result
from paragonsr2.upscale.backends import Backend, OnnxBackend
from paragonsr2.upscale.openvino_backend import OpenVinoBackend, computes_bfloat16
from paragonsr2.upscale.temporal import Steadier
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import plan_video
from paragonsr2.weights.catalogue import Entry, bundled_bytes, find
from paragonsr2.weights.metadata import Precision

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "speed" / "video_stages.json"
CLIP = ROOT.parent / "shared" / "data" / "video" / "bikes.mp4"
WIDTH, HEIGHT, SCALE = 640, 360, 2
#: Frames that are timed by stages, after some for warm-up; and those of the whole clip.
STAGED, WARM_UP, WHOLE = 60, 4, 200

Result = TypeVar("Result")


class Stages:
    """Processor time by stage."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def time(self, name: str, work: Callable[[], Result]) -> Result:
        """Do some work and count its time."""
        started = time.process_time()
        result = work()
        self.seconds[name] += time.process_time() - started
        return result


def smaller(path: Path, frames: int) -> None:
    """Write the clip's first frames in the size that is measured."""
    with av.open(str(CLIP)) as clip, av.open(str(path), "w") as out:
        stream = out.add_stream("h264", rate=25, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index, frame in enumerate(clip.decode(video=0)):
            if index == frames:
                break
            small = frame.reformat(WIDTH, HEIGHT)
            small.pts = None
            out.mux(stream.encode(small))
        out.mux(stream.encode())


def staged(source: Path, backend: Backend) -> dict[str, float]:
    """Milliseconds of processor time a frame, by stage."""
    clip = probe(source)
    encoding = plan_video(source, source.with_name("x.mp4"), SCALE).encoding
    stages = Stages()
    plain = backend.run

    def network(x: FloatNCHW) -> FloatNCHW:
        return stages.time("network", lambda: plain(x))

    backend.run = network  # type: ignore[method-assign]
    upscaler, steadier, converter = Upscaler.around(backend), Steadier(SCALE), Converter(clip)
    frames = read_frames(clip)
    before: tuple[Pixels, Pixels] | None = None
    done: list[VideoFrame] = []
    while len(done) < STAGED + WARM_UP:
        if len(done) == WARM_UP:
            stages.seconds.clear()
        small = stages.time("decoding", lambda: next(frames).pixels)
        if small is None:
            continue
        deep = stages.time("enlarging", lambda small=small: to_16_bits(small))
        large = stages.time("enlarging", lambda deep=deep: upscaler(deep))
        steady = large
        if before is not None:
            pairs = (before[0], small), (before[1], large)
            steady = stages.time("steadying", lambda pairs=pairs: steadier(*pairs))
        flat = stages.time("converting", lambda steady=steady: to_8_bits(steady))
        done.append(
            stages.time(
                "converting", lambda flat=flat: converter.from_rgb(flat, encoding.pixel_format)
            )
        )
        before = small, large
    encoder = SegmentEncoder(encoding)

    def encode() -> None:
        for index, frame in enumerate(done[WARM_UP:]):
            list(encoder.encode(frame, index, 1))
        list(encoder.finish())

    stages.time("encoding", encode)
    stages.seconds["enlarging"] -= stages.seconds["network"]
    return {name: round(1e3 * spent / STAGED, 2) for name, spent in stages.seconds.items()}


def whole(source: Path, backend: str, precision: Precision, temporal: str) -> float:
    """Seconds that the command takes."""
    command = [
        sys.executable, "-m", "paragonsr2", "upscale", str(source), "--model", "realtime",
        "--backend", backend, "--precision", precision, "--device", "cpu",
        "--temporal", temporal, "--overwrite",
    ]  # fmt: skip
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def opened(entry: Entry, engine: str, precision: Precision) -> Backend:
    """Realtime on one thread."""
    if engine == "onnxruntime":
        return OnnxBackend(bundled_bytes(entry, "onnx"), device="cpu", threads=1, trusted=True)
    model = bundled_bytes(entry, "onnx_int8" if precision == "int8" else "onnx")
    return OpenVinoBackend(model, device="cpu", precision=precision, threads=1, trusted=True)


def main() -> None:
    """Measure and write the result file."""
    cv2.setNumThreads(1)
    entry = find("realtime", SCALE)
    formats: dict[Precision, str] = {"fp32": "onnxruntime"}
    if computes_bfloat16():
        formats["bf16"] = "openvino"
    if "onnx_int8" in entry.files:
        formats["int8"] = "openvino"
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        source, short = Path(name, "clip.mp4"), Path(name, "short.mp4")
        smaller(source, WHOLE)
        smaller(short, WHOLE // 4)
        for precision, engine in formats.items():
            backend = opened(entry, engine, precision)
            stages = staged(source, backend)
            rest = sum(ms for stage, ms in stages.items() if stage != "encoding")
            row: dict[str, object] = {
                "engine": backend.name,
                "processor_ms_per_frame": stages,
                "all_but_encoding_over_network": round(rest / stages["network"], 3),
            }
            for temporal in ("on", "off"):
                clip, start = (whole(one, engine, precision, temporal) for one in (source, short))
                # The difference of two lengths leaves out what the start takes.
                rate = 0.75 * WHOLE / (clip - start)
                row[f"frames_per_second_steadying_{temporal}"] = round(rate, 2)
            rows.append(row)
            print(row, flush=True)
    write_result(RESULT, {"clip": [CLIP.name, WIDTH, HEIGHT], "model": "realtime x2", "rows": rows})


if __name__ == "__main__":
    main()
