"""``paragonsr2 benchmark``: latency, memory and speed-up, and quality beside other networks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from paragonsr2.cli.options import JsonOption
from paragonsr2.errors import BackendError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from paragonsr2.measure.benchmark import Absent, Candidate, Row, Run, Size
    from paragonsr2.measure.side_by_side import Comparison, Patience
    from paragonsr2.upscale.backends import TorchMode
    from paragonsr2.weights.catalogue import Entry
    from paragonsr2.weights.metadata import Precision


def benchmark(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Bundled variant; may be repeated. [default: all]"),
    ] = None,
    resolution: Annotated[
        list[str] | None,
        typer.Option(
            help="Input WIDTHxHEIGHT; may be repeated. [default: 1920x1080, 1280x720, 960x540]"
        ),
    ] = None,
    calls: Annotated[int, typer.Option(min=1, help="Timed calls of each candidate.")] = 9,
    warmup: Annotated[int, typer.Option(min=0, help="Calls of each before these.")] = 2,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 2,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also time bicubic and Magic Kernel.")
    ] = False,
    peers: Annotated[
        Path | None,
        typer.Option(help="JSON table of other networks to time and plot beside all of ours."),
    ] = None,
    peer_resolution: Annotated[
        str, typer.Option(help="Input for the comparison with --peers.")
    ] = "640x360",
    peer_limit: Annotated[
        float, typer.Option(min=0.0, help="Leave out peers whose call takes more seconds.")
    ] = 20.0,
    peer_budget: Annotated[
        float, typer.Option(min=0.0, help="Seconds for the timed calls of one network.")
    ] = 10.0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Result file; the .md table is put beside it.")
    ] = Path("results/speed/benchmark.json"),
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Plot of --peers, without suffix; .svg and .png. [default: beside the result]"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time the bundled models in every engine, at video sizes, with memory and speed-up."""
    from paragonsr2.measure.benchmark import (
        SIZES,
        absent_table,
        measure_size,
        parse_size,
        rows_table,
        write_table,
    )
    from paragonsr2.measure.machine import describe_machine, write_result

    sizes = [parse_size(text) for text in resolution] if resolution else list(SIZES)
    peer_size = parse_size(peer_resolution)
    entries = _chosen(model)
    use_threads(threads)
    rows: list[Row] = []
    absent: dict[Absent, None] = {}
    for size in sizes:
        candidates = candidates_of(entries, threads)
        if baselines:
            candidates += _baselines()
        measured, missing = measure_size(
            candidates, size, calls=calls, warmup=warmup, progress=_say
        )
        rows += measured
        absent.update(dict.fromkeys(missing))
    whole: dict[str, Any] = {
        "threads": threads,
        "rows": [asdict(row) for row in rows],
        "absent": [asdict(one) for one in absent],
    }
    about = describe_machine()
    machine = f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB"
    text = f"# Benchmark\n\n{machine}; {threads} threads.\n\n{rows_table(rows)}"
    if absent:
        text += f"\n{absent_table(list(absent))}"
    if peers is not None:
        patience = _patience(peer_limit, peer_budget)
        compared = _compare(_chosen(None), peers, peer_size, threads, patience)
        title = f"{peer_size} to x2 in ONNX Runtime, {threads} threads, {machine}"
        _plot(compared, title, plot or output.with_name(f"{output.stem}_quality_speed"))
        whole["beside_peers"] = compared.result
        text += f"\n## Beside other networks\n\n{title}\n\n{compared.text}"
    write_result(output, whole)
    write_table(output.with_suffix(".md"), text)
    print(json.dumps(whole) if as_json else text)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _chosen(names: Sequence[str] | None) -> list[Entry]:
    from paragonsr2.weights.catalogue import entries

    chosen = [e for e in entries() if not names or e.variant in names or e.name in names]
    for name in names or ():
        if not any(name in (e.variant, e.name) for e in chosen):
            there = ", ".join(e.name for e in entries()) or "none"
            raise UsageError(f"no model '{name}' is bundled (there are: {there})")
    if not chosen:
        raise UsageError("no models are bundled, so that there is nothing to time; reinstall")
    return chosen


def use_threads(threads: int) -> None:
    """Let PyTorch compute on ``threads`` threads, if it is installed."""
    try:
        import torch
    except ModuleNotFoundError:
        return
    torch.set_num_threads(threads)


def candidates_of(entries: Sequence[Entry], threads: int) -> list[Candidate]:
    """Every engine and precision that each model could run in, whether it is here or not."""
    from paragonsr2.measure.benchmark import Candidate
    from paragonsr2.upscale.backends import PROVIDERS

    made: list[Candidate] = []
    for entry in entries:

        def add(
            backend: str,
            precision: str,
            start: Callable[[], Run],
            *,
            cuda: bool = False,
            entry: Entry = entry,
        ) -> None:
            made.append(Candidate(entry.name, backend, precision, entry.scale, start, cuda))

        for device in PROVIDERS:
            cuda = device in ("cuda", "tensorrt")
            add(f"ONNX Runtime {device}", "fp32", _onnx(entry, "onnx", device, threads), cuda=cuda)
            add(
                f"ONNX Runtime {device}", "fp16",
                _onnx(entry, "onnx_fp16", device, threads), cuda=cuda,
            )  # fmt: skip
        add("OpenVINO cpu", "fp32", _openvino(entry, "cpu", "fp32", threads))
        add("OpenVINO gpu", "fp16", _openvino(entry, "gpu", "fp16", threads))
        for mode in ("eager", "compiled"):
            add(f"PyTorch cpu {mode}", "fp32", _torch(entry, "cpu", "fp32", mode))
        for mode in ("eager", "compiled", "graphs"):
            start = _torch(entry, "cuda", "fp16", mode)
            add(f"PyTorch cuda {mode}", "fp16", start, cuda=True)
        add("TensorRT", "fp16", _tensorrt(entry), cuda=True)
    return made


def _baselines() -> list[Candidate]:
    from paragonsr2.measure.benchmark import Candidate
    from paragonsr2.upscale.backends import ClassicalBackend

    return [
        Candidate(name, "numpy", "fp32", 2, lambda alpha=alpha: ClassicalBackend(2, alpha).run)
        for name, alpha in (("bicubic", None), ("magic", 0.0))
    ]


def _onnx(
    entry: Entry, kind: Literal["onnx", "onnx_fp16"], device: str, threads: int
) -> Callable[[], Run]:
    def start() -> Run:
        from paragonsr2.upscale.backends import OnnxBackend
        from paragonsr2.weights.catalogue import bundled_bytes

        if kind not in entry.files:
            raise BackendError("this model is bundled without an fp16 graph; paragonsr2 export")
        return OnnxBackend(bundled_bytes(entry, kind), device=device, threads=threads).run

    return start


def _openvino(entry: Entry, device: str, precision: Precision, threads: int) -> Callable[[], Run]:
    def start() -> Run:
        from paragonsr2.upscale.openvino import OpenVinoBackend
        from paragonsr2.weights.catalogue import bundled_bytes

        content = bundled_bytes(entry, "onnx")
        return OpenVinoBackend(content, device=device, precision=precision, threads=threads).run

    return start


def _torch(entry: Entry, device: str, precision: Precision, mode: TorchMode) -> Callable[[], Run]:
    def start() -> Run:
        from paragonsr2.measure.speed import noise_inputs
        from paragonsr2.upscale.backends import TorchBackend, load_torch_network
        from paragonsr2.weights.catalogue import bundled_path

        network = load_torch_network(bundled_path(entry, "safetensors"))
        # It hands its result to the processor, and so returns when the device is done.
        backend = TorchBackend(network, device=device, precision=precision, mode=mode)
        try:
            for x in noise_inputs(96, 128):
                backend.run(x)
        except Exception as error:  # compilers fail in many unrelated ways
            reason = " ".join(str(error).split())[:160]
            raise BackendError(f"PyTorch {mode} failed: {reason}") from error
        return _synchronised(backend.run)

    return start


def _synchronised(run: Run) -> Run:
    """``run``, which waits for CUDA where there is one: nothing may be left to do afterwards."""
    import torch

    if not torch.cuda.is_available():
        return run

    def waiting(x: Any) -> object:
        result = run(x)
        torch.cuda.synchronize()
        return result

    return waiting


def _tensorrt(entry: Entry) -> Callable[[], Run]:
    def start() -> Run:
        from paragonsr2.upscale.upscaler import open_backend

        return open_backend(entry.variant, entry.scale, backend="tensorrt").run

    return start


def _patience(limit: float, budget: float) -> Patience:
    try:
        from paragonsr2.measure.side_by_side import Patience
    except ModuleNotFoundError as error:
        raise MissingExtraError("building other networks", "torch") from error
    return Patience(limit=limit, budget=budget)


def _compare(
    entries: Sequence[Entry], table: Path, size: Size, threads: int, patience: Patience
) -> Comparison:
    from paragonsr2.errors import EnvironmentProblem
    from paragonsr2.measure.peers import read_peers
    from paragonsr2.measure.side_by_side import Ours, compare
    from paragonsr2.upscale.backends import OnnxBackend

    ours: list[Ours] = []
    for entry in entries:
        if entry.scale != 2:
            continue
        runs = {"ONNX Runtime": _onnx(entry, "onnx", "cpu", threads)()}
        try:
            runs["OpenVINO"] = _openvino(entry, "cpu", "fp32", threads)()
        except EnvironmentProblem as error:
            _say(f"without OpenVINO: {error}")
        quality = {name: row["psnr_y"] for name, row in entry.quality.items()}
        ours.append(
            Ours(
                entry.model, entry.variant, entry.kmacs_per_pixel,
                quality.get("Set5"), quality.get("Set14"), runs,
            )
        )  # fmt: skip

    def open_onnx(content: bytes) -> Run:
        return OnnxBackend(content, device="cpu", threads=threads).run

    return compare(ours, read_peers(table), size, open_onnx, patience, _say)


def _plot(compared: Comparison, title: str, path: Path) -> None:
    from paragonsr2.measure.plot import plot_quality_speed

    for file in plot_quality_speed(compared.placed, title, path):
        print(f"wrote {file}", file=sys.stderr)
