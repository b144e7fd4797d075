"""Run the bundled models in other people's tools and write what they differ by.

    python tools/tools_table.py --data ../shared/data     # writes results/export/tools.json

Each row compares a tool with ONNX Runtime on crops of the validation pictures. A tool that is not
installed gets a row that says so. Times are processor time of one call in one thread, so that other
work on the machine does not count. They are left out where the tool computes a GPU's work on the
CPU, because they would say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

sys.path.append(str(Path(__file__).parent.parent))

from benchmark import vapoursynth_frames
from benchmark.gpu_stand_ins import (
    MissingToolError,
    enlarge_in_browser,
    play,
    require_player,
    webgpu_page,
)
from benchmark.torchvision_names import torchvision_names
from paragonsr2.arrays.convert import to_float
from paragonsr2.export.ncnn import build_ncnn
from paragonsr2.measure.machine import write_result
from paragonsr2.shaders.glsl import write_glsl
from paragonsr2.shaders.reading import read_program
from paragonsr2.shaders.wgsl import write_wgsl
from paragonsr2.weights.catalogue import Entry, bundled_bytes, bundled_path, find
from paragonsr2.weights.store import load_checkpoint

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "export" / "tools.json"
MODELS = (("realtime", 2), ("realtime", 4), ("stream", 2), ("stream", 4))
CALLS = 7

Run = Callable[[np.ndarray], np.ndarray]


@dataclass
class Opened:
    """A model in a tool.

    Attributes:
        version: of the tool.
        run: maps ``(1, 3, H, W)`` to the enlarged picture.
        ms: processor milliseconds of a call, after a warm-up; None where they would say nothing.
    """

    version: str
    run: Run
    ms: Callable[[np.ndarray], float] | None = None


def crops(data: Path) -> list[np.ndarray]:
    """Three crops ``(1, 3, H, W)`` float32 of odd sizes."""
    sizes = [(180, 320), (151, 233), (97, 121)]
    found: list[np.ndarray] = []
    for path, (height, width) in zip(sorted((data / "val").glob("*.png"))[3:], sizes, strict=False):
        pixels = np.asarray(Image.open(path).convert("RGB"))[40 : 40 + height, 60 : 60 + width]
        planes = pixels.transpose(2, 0, 1)[None] / 255
        found.append(np.ascontiguousarray(planes, np.float32))
    return found


def session(entry: Entry) -> onnxruntime.InferenceSession:
    """One thread of ONNX Runtime with a bundled model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(bundled_path(entry, "onnx")), options)


def median_ms(run: Run, x: np.ndarray) -> float:
    """Processor milliseconds of a call, after a warm-up."""
    run(x)
    seconds: list[float] = []
    for _ in range(CALLS):
        started = time.process_time()
        run(x)
        seconds.append(time.process_time() - started)
    return round(statistics.median(seconds) * 1e3, 1)


def timed(number: str, run: Run) -> Opened:
    """A tool whose time in this process is worth telling."""
    return Opened(number, run, partial(median_ms, run))


def version(package: str) -> str:
    """Version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise MissingToolError(f"{package} is not installed") from None


def in_onnxruntime(entry: Entry) -> Opened:
    """The reference."""
    model = session(entry)
    return timed(version("onnxruntime"), lambda x: model.run(None, {"input": x})[0])


def in_openvino(entry: Entry) -> Opened:
    """OpenVINO on one thread, in float32."""
    number = version("openvino")
    core = importlib.import_module("openvino").Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(str(bundled_path(entry, "onnx")), "CPU", settings)
    return timed(number, lambda x: model(x)[0])


def in_torch(entry: Entry) -> Opened:
    """PyTorch through spandrel, as chaiNNer and ComfyUI open it."""
    import torch

    number = version("spandrel")
    torch.set_num_threads(1)
    with torchvision_names():
        spandrel = importlib.import_module("spandrel")
    importlib.import_module("paragonsr2.spandrel").install()
    model = spandrel.ModelLoader().load_from_file(bundled_path(entry, "safetensors"))

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return timed(number, run)


def in_ncnn(entry: Entry) -> Opened:
    """Ncnn on one thread of the CPU."""
    number = version("ncnn")
    ncnn = importlib.import_module("ncnn")
    network = load_checkpoint(bundled_path(entry, "safetensors")).network
    with tempfile.TemporaryDirectory() as folder:
        param, weights = build_ncnn(network).write(Path(folder), "model")
        net = ncnn.Net()
        net.opt.num_threads = 1
        net.load_param(str(param))
        net.load_model(str(weights))

    def run(x: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(x[0]).clone())
        return np.array(extractor.extract("output")[1])[None]

    return timed(number, run)


def in_ncnn_client(entry: Entry) -> Opened:
    """A program around ncnn on a CPU's Vulkan; it cuts pictures into overlapping tiles."""
    number = version("upscale-ncnn-py")
    client = importlib.import_module("upscale_ncnn_py").UPSCALE
    network = load_checkpoint(bundled_path(entry, "safetensors")).network

    def run(x: np.ndarray) -> np.ndarray:
        pixels = np.rint(x[0].transpose(1, 2, 0) * 255).astype(np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            opened = client(gpuid=0, model=-1, scale=entry.scale)
            opened._load(*build_ncnn(network).write(Path(folder), entry.name), entry.scale)
            # In spite of the method's name, colours are in the order of the file.
            return to_float(opened.process_cv2(pixels))

    return Opened(number, run)


def in_libplacebo(entry: Entry) -> Opened:
    """A player's shader, in ffmpeg's libplacebo on a CPU's Vulkan."""
    require_player()
    about = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True)
    shader = write_glsl(read_program(bundled_bytes(entry, "onnx"), entry.name), entry.name)

    def run(x: np.ndarray) -> np.ndarray:
        pixels = np.rint(x[0].transpose(1, 2, 0) * 255).astype(np.uint8)
        return to_float(play(pixels, shader, entry.scale))

    return Opened(" ".join(about.stdout.split()[:3]), run)


def in_webgpu(entry: Entry) -> Opened:
    """WebGPU in Chromium on SwiftShader."""
    document = json.loads(write_wgsl(read_program(bundled_bytes(entry, "onnx"), entry.name)))

    def run(x: np.ndarray) -> np.ndarray:
        rgba = np.concatenate([x, np.ones_like(x[:, :1])], axis=1)
        with webgpu_page() as page:
            return enlarge_in_browser(page, document, rgba)[:, :3]

    with webgpu_page() as page:
        return Opened(f"Chromium {page.context.browser.version}", run)


def in_vapoursynth(backend: str, entry: Entry) -> Opened:
    """VapourSynth with one of the filters of vs-mlrt, on as many threads as the filter takes."""
    python = vapoursynth_frames.interpreter()
    if python is None:
        raise MissingToolError("VapourSynth is not installed")
    numbers = vapoursynth_frames.versions(python)
    plugin = f"vapoursynth-mlrt-{backend}"
    if plugin not in numbers:
        raise MissingToolError(f"{plugin} is not installed")

    def enlarged(x: np.ndarray, calls: int = 0) -> vapoursynth_frames.Enlarged:
        return vapoursynth_frames.enlarge(python, x, entry.model, entry.scale, backend, calls)

    return Opened(
        f"R{numbers['vapoursynth']}, {plugin} {numbers[plugin]}",
        lambda x: enlarged(x).picture,
        None if backend == "ncnn" else lambda x: enlarged(x, CALLS).ms,
    )


TOOLS: dict[str, Callable[[Entry], Opened]] = {
    "ONNX Runtime": in_onnxruntime,
    "OpenVINO": in_openvino,
    "spandrel (PyTorch)": in_torch,
    "ncnn": in_ncnn,
    "upscale-ncnn-py (ncnn)": in_ncnn_client,
    "ffmpeg, libplacebo": in_libplacebo,
    "Chromium, WebGPU": in_webgpu,
    "VapourSynth, ONNX Runtime": partial(in_vapoursynth, "ort"),
    "VapourSynth, OpenVINO": partial(in_vapoursynth, "ov"),
    "VapourSynth, ncnn": partial(in_vapoursynth, "ncnn"),
}


def rows(pictures: list[np.ndarray], tools: Collection[str]) -> Iterator[dict[str, object]]:
    """One row for each model and tool."""
    for model, scale in MODELS:
        entry = find(model, scale)
        reference = session(entry)
        wanted = [reference.run(None, {"input": x})[0].clip(0, 1) for x in pictures]
        for tool, opened in TOOLS.items():
            if tool not in tools:
                continue
            row: dict[str, object] = {"tool": tool, "model": model, "scale": scale}
            if tool in ("ffmpeg, libplacebo", "Chromium, WebGPU") and model != "realtime":
                continue
            try:
                tool_here = opened(entry)
                results = [tool_here.run(x).clip(0, 1) for x in pictures]
            except MissingToolError as error:
                yield {**row, "not_run": str(error)}
                continue
            pairs = list(zip(results, wanted, strict=True))
            row["version"] = tool_here.version
            row["largest_difference"] = max(float(np.abs(a - b).max()) for a, b in pairs)
            error = max(float(np.mean((a - b) ** 2)) for a, b in pairs)
            row["lowest_psnr"] = round(float(-10 * np.log10(error)), 2) if error else None
            if tool_here.ms is not None:
                row["ms_320x180"] = tool_here.ms(pictures[0])
            print(row, flush=True)
            yield row


def main() -> int:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with val/")
    parser.add_argument("--only", choices=TOOLS, help="the other rows stay")
    options = parser.parse_args()
    tools = [options.only] if options.only else list(TOOLS)
    made = list(rows(crops(options.data), tools))
    if options.only:
        before = json.loads(RESULT.read_text(encoding="utf-8"))["rows"]
        made += [row for row in before if row["tool"] != options.only]
        models, order = list(MODELS), list(TOOLS)
        made.sort(
            key=lambda row: (models.index((row["model"], row["scale"])), order.index(row["tool"]))
        )
    write_result(RESULT, {"threads": 1, "calls": CALLS, "rows": made})
    return 0


if __name__ == "__main__":
    sys.exit(main())
