"""``paragonsr2 benchmark``: latency, memory and speed-up, and quality beside other networks."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paragonsr2.cli.options import JsonOption
from paragonsr2.errors import MissingExtraError, UsageError
from paragonsr2.weights.metadata import BackendName

if TYPE_CHECKING:
    from paragonsr2.measure.latency import Absent, Candidate, Resolution, Row
    from paragonsr2.weights.catalogue import Entry

_ENGINE_SUFFIX = ".engine"
#: Holds ``benchmark/`` in a checkout; in a wheel the laboratory is not below this folder.
_ROOT = Path(__file__).resolve().parents[3]

ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="Bundled variant, such as realtime, or an .engine file of paragonsr2 engine; may be "
        "repeated.",
        show_default="all bundled models",
    ),
]
ResolutionOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Input size, WIDTHxHEIGHT; may be repeated.",
        show_default="1920x1080, 1280x720, 960x540",
    ),
]
TimedBackendOption = Annotated[
    BackendName, typer.Option(help="Time bundled models in this engine only; auto: in every one.")
]
TimedDeviceOption = Annotated[
    str,
    typer.Option(
        help="Time bundled models on this device only: cpu, cuda, directml, coreml, or gpu "
        "(OpenVINO); auto: on every one."
    ),
]
CallsOption = Annotated[int, typer.Option(min=1, help="Timed calls per candidate.")]
WarmupOption = Annotated[int, typer.Option(min=0, help="Untimed calls per candidate before them.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Processor threads.")]
BaselinesOption = Annotated[
    bool, typer.Option("--baselines", help="Also time bicubic and the Magic Kernel.")
]
PeersOption = Annotated[
    Path | None,
    typer.Option(
        help="JSON table of other networks to time and plot at x2 beside ours: those of --model, "
        "or all for fidelity. Only in a checkout of the repository."
    ),
]
PeerResolutionOption = Annotated[str, typer.Option(help="Input size for --peers, WIDTHxHEIGHT.")]
PeerLimitOption = Annotated[
    float, typer.Option(min=0.0, help="Leave out peers whose call takes longer, in seconds.")
]
PeerBudgetOption = Annotated[
    float, typer.Option(min=0.0, help="Seconds for the timed calls of one network.")
]
OutputOption = Annotated[
    Path,
    typer.Option("--output", "-o", help="Result file; a Markdown table is written beside it."),
]
PlotOption = Annotated[
    Path | None,
    typer.Option(
        help="Plot for --peers: path without suffix, for an .svg and a .png.",
        show_default="beside the result file",
    ),
]


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to time, how, and where the results go; one attribute per flag.

    Attributes:
        models: bundled variants and engine files; empty for all bundled models.
        resolutions: of the inputs.
        backend: engine to time bundled models in; ``auto`` for every engine.
        device: to time bundled models on; ``auto`` for every device.
        calls: timed calls per candidate.
        warmup: untimed calls per candidate before them.
        threads: processor threads.
        baselines: also time the classical baselines.
        peers: table of other networks; None without the comparison.
        peer_resolution: of the input in the comparison.
        peer_limit: seconds per call; slower peers are left out.
        peer_budget: seconds for the timed calls of one network in the comparison.
        output: the result file.
        plot: of the comparison, without suffix.
    """

    models: Sequence[str]
    resolutions: Sequence[Resolution]
    backend: BackendName
    device: str
    calls: int
    warmup: int
    threads: int
    baselines: bool
    peers: Path | None
    peer_resolution: Resolution
    peer_limit: float
    peer_budget: float
    output: Path
    plot: Path


def benchmark(
    model: ModelsOption = None,
    resolution: ResolutionOption = None,
    backend: TimedBackendOption = "auto",
    device: TimedDeviceOption = "auto",
    calls: CallsOption = 9,
    warmup: WarmupOption = 2,
    threads: ThreadsOption = 2,
    baselines: BaselinesOption = False,
    peers: PeersOption = None,
    peer_resolution: PeerResolutionOption = "640x360",
    peer_limit: PeerLimitOption = 20.0,
    peer_budget: PeerBudgetOption = 10.0,
    output: OutputOption = Path("results/speed/benchmark.json"),
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time models in every installed engine at video resolutions: latency, memory, speed-up."""
    from paragonsr2.measure.latency import RESOLUTIONS, parse_resolution

    options = BenchmarkOptions(
        models=model or (),
        resolutions=[parse_resolution(text) for text in resolution or ()] or RESOLUTIONS,
        backend=backend,
        device=device,
        calls=calls,
        warmup=warmup,
        threads=threads,
        baselines=baselines,
        peers=peers,
        peer_resolution=parse_resolution(peer_resolution),
        peer_limit=peer_limit,
        peer_budget=peer_budget,
        output=output,
        plot=plot or output.with_name(f"{output.stem}_quality_speed"),
    )
    result, text = run_benchmark(options)
    print(json.dumps(result) if as_json else text)


def run_benchmark(options: BenchmarkOptions) -> tuple[dict[str, Any], str]:
    """Measure, and write the result file and its table.

    Returns:
        The result, and the same as Markdown.

    Raises:
        UsageError: a model is not bundled, or ``peers`` is given outside a checkout.
        EnvironmentProblem: an engine file, or the comparison with peers, cannot be used here.
        OutputError: a file cannot be written.
    """
    from paragonsr2.cli.candidates import use_threads
    from paragonsr2.measure.machine import describe_machine, machine_line, write_result

    # Fail before the measurement, which takes minutes.
    laboratory = None if options.peers is None else _laboratory()
    ours = [] if options.peers is None else _beside(options)
    candidates = _candidates(options)
    use_threads(options.threads)
    rows, absent = _measure(options, candidates)
    machine = machine_line(describe_machine())
    result: dict[str, Any] = {
        "threads": options.threads,
        "rows": [asdict(row) for row in rows],
        "absent": [asdict(one) for one in absent],
    }
    text = _report(options, machine, rows, absent)
    if laboratory is not None:
        compared, section = _compare(options, ours, machine, laboratory)
        result["beside_peers"] = compared
        text += section
    write_result(options.output, result, text)
    return result, text


def _candidates(options: BenchmarkOptions) -> list[Candidate]:
    from paragonsr2.cli.candidates import baseline_candidates, candidates_of, engine_candidate

    engines = [Path(name) for name in options.models if name.lower().endswith(_ENGINE_SUFFIX)]
    names = _names(options)
    candidates: list[Candidate] = []
    if names or not engines:
        candidates += candidates_of(
            _bundled(names), options.threads, options.backend, options.device
        )
    candidates += [engine_candidate(path) for path in engines]
    if options.baselines:
        candidates += baseline_candidates()
    return candidates


def _names(options: BenchmarkOptions) -> list[str]:
    """The models that are no engine files."""
    return [name for name in options.models if not name.lower().endswith(_ENGINE_SUFFIX)]


def _measure(
    options: BenchmarkOptions, candidates: Sequence[Candidate]
) -> tuple[list[Row], list[Absent]]:
    from paragonsr2.measure.latency import measure_resolution

    rows: list[Row] = []
    absent: dict[Absent, None] = {}  # each once, in the order in which they were found
    for resolution in options.resolutions:
        measured, missing = measure_resolution(
            candidates,
            resolution,
            calls=options.calls,
            warmup=options.warmup,
            progress=_progress,
        )
        rows += measured
        absent.update(dict.fromkeys(missing))
    return rows, list(absent)


def _report(
    options: BenchmarkOptions, machine: str, rows: Sequence[Row], absent: Sequence[Absent]
) -> str:
    from paragonsr2.measure.latency import absent_table, rows_table

    text = f"# Benchmark\n\n{machine}; {options.threads} threads.\n\n{rows_table(rows)}"
    return f"{text}\n{absent_table(absent)}" if absent else text


def _beside(options: BenchmarkOptions) -> list[Entry]:
    """Our models in the comparison with peers: the chosen ones, or those for fidelity, at x2.

    Raises:
        UsageError: none of the chosen models is for x2.
    """
    names = _names(options)
    ours = [e for e in _bundled(names) if e.scale == 2 and (names or e.kind == "fidelity")]
    if not ours:
        raise UsageError("--peers compares at x2; add a model for x2 to --model, or leave it out")
    return ours


def _compare(
    options: BenchmarkOptions, ours: Sequence[Entry], machine: str, laboratory: Any
) -> tuple[dict[str, Any], str]:
    title = f"{options.peer_resolution} to x2 in ONNX Runtime, {options.threads} threads, {machine}"
    compared, text = laboratory.beside_peers(
        ours,
        options.peers,
        options.plot,
        title=title,
        resolution=options.peer_resolution,
        threads=options.threads,
        limit=options.peer_limit,
        budget=options.peer_budget,
        progress=_progress,
    )
    return compared, f"\n## Beside other networks\n\n{title}\n\n{text}"


def _laboratory() -> Any:
    """The module of the repository that compares networks; a wheel does not carry it.

    Raises:
        UsageError: this is not a checkout.
        MissingExtraError: PyTorch is not installed.
    """
    if not (_ROOT / "benchmark" / "beside_peers.py").is_file():
        raise UsageError(
            "--peers needs benchmark/, which is not part of the installed package; run "
            "benchmark_release.py in a checkout of the ParagonSR2 repository"
        )
    sys.path.insert(0, str(_ROOT))
    try:
        return importlib.import_module("benchmark.beside_peers")
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"building other networks ({error})", "torch") from error
    finally:
        sys.path.remove(str(_ROOT))


def _bundled(names: Sequence[str]) -> list[Entry]:
    """The bundled models of these names, all of them if there are no names."""
    from paragonsr2.weights.catalogue import entries

    chosen = [e for e in entries() if not names or e.variant in names or e.name in names]
    for name in names:
        if not any(name in (e.variant, e.name) for e in chosen):
            there = ", ".join(e.name for e in entries()) or "none"
            raise UsageError(f"no model '{name}' is bundled (bundled models: {there})")
    if not chosen:
        raise UsageError("no models are bundled, so there is nothing to time; reinstall paragonsr2")
    return chosen


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
