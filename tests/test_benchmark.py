"""The benchmark: what it counts, reports and draws; never how fast anything is."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmark import peer_networks, peers, side_by_side
from benchmark.placement import Placed, calls_within, dominating, frontier, placed_table
from benchmark.plot import plot_quality_speed
from benchmark.side_by_side import Ours, Patience, compare, trained_form
from benchmark.torchvision_names import torchvision_names
from conftest import ROOT, stirred
from fake_tensorrt import FakeTensorRt
from paragonsr2.cli.candidates import candidates_of
from paragonsr2.cli.main import app
from paragonsr2.errors import (
    BackendError,
    ExportError,
    MissingExtraError,
    UsageError,
    WeightsError,
)
from paragonsr2.measure import memory, speed
from paragonsr2.measure.latency import (
    Absent,
    Candidate,
    Resolution,
    absent_table,
    measure_resolution,
    parse_resolution,
    rows_table,
)
from paragonsr2.network.generator import build
from paragonsr2.tensorrt import backend
from paragonsr2.tensorrt.engine_files import (
    EngineDescription,
    EngineIdentity,
    Gpu,
    InputSize,
    Profile,
    write_description,
)
from paragonsr2.upscale.backends import OnnxBackend
from paragonsr2.weights.catalogue import Entry, find

SIZE = Resolution(32, 24)


def say_nothing(what):
    pass


def open_onnx(content):
    return OnnxBackend(content, device="cpu", threads=1, trusted=True).run


@pytest.fixture(autouse=True)
def given_peak(monkeypatch):
    """The machine's peak is given, because measuring it takes seconds."""
    monkeypatch.setattr(side_by_side, "matrix_peak", lambda: 1e11)


@pytest.fixture
def spandrel():
    with torchvision_names():
        return pytest.importorskip("spandrel", reason="spandrel is not installed")


def test_sizes_are_read():
    assert parse_resolution(" 1280X720 ") == Resolution(1280, 720)
    assert str(parse_resolution("3x4")) == "3x4"


@pytest.mark.parametrize("text", ["", "1280", "1280x", "x3", "0x3", "3x99999", "-1x4", "1x2x3"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
        parse_resolution(text)


def test_faster_and_better():
    ours = Placed("ours", 1.0, 37.0, 32.834, ours=True)
    others = [
        Placed("slower, better", 1.1, None, 34.0),
        Placed("faster, worse", 0.5, None, 32.0),
        Placed("faster, better", 0.5, None, 33.0),
        Placed("as fast, better", 1.0, None, 32.84),
        Placed("as good at two decimals", 0.5, None, 32.83),
        Placed("unknown", 0.1, 40.0, None),
    ]
    assert [p.name for p in dominating(ours, others)] == ["faster, better", "as fast, better"]
    assert dominating(replace(ours, set14=None), others) == []


def test_slow_networks_get_fewer_calls():
    assert calls_within(0.1, 10.0, 15) == 15
    assert calls_within(1.0, 10.0, 15) == 10
    assert calls_within(30.0, 10.0, 15) == 2
    assert calls_within(0.0, 10.0, 15) == 15


def test_calls_may_differ_by_candidate():
    seen = {"a": 0, "b": 0}

    def count(name):
        def run(x):
            seen[name] += 1

        return run

    timings = speed.time_side_by_side(
        {name: count(name) for name in seen}, 2, 3, calls={"a": 5, "b": 2}, warmup=1
    )
    assert seen == {"a": 6, "b": 3}
    assert (timings["a"].calls, timings["b"].calls) == (5, 2)


def test_median_and_percentile(monkeypatch):
    # Each call reads the clock twice; the i-th lasts i seconds.
    ticks = iter([tick for i in range(1, 22) for tick in (0.0, float(i))])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(ticks))
    timing = speed.time_side_by_side({"a": len}, 2, 3, calls=21, warmup=0)["a"]
    assert timing.median == 11.0
    assert timing.p95 == 20.0


def test_inputs_rotate_and_are_never_zero():
    seen = []
    one = Candidate("m", "b", "fp32", 2, lambda: lambda x: seen.append(x.copy()))
    measure_resolution([one], SIZE, calls=5, warmup=1, progress=say_nothing)
    assert len(seen) == 7
    assert all(x.shape == (1, 3, 24, 32) and x.std() > 0.1 for x in seen)
    assert not np.array_equal(seen[-1], seen[-2])


def test_absent_backends_are_named():
    def refuse():
        raise BackendError("no such device")

    there = Candidate("m", "here", "fp32", 2, lambda: len)
    gone = Candidate("m", "gone", "fp16", 2, refuse)
    rows, absent = measure_resolution(
        [gone, there, there], SIZE, calls=2, warmup=0, progress=say_nothing
    )
    assert absent == [Absent("m", "gone", "fp16", "no such device")]
    assert [row.backend for row in rows] == ["here", "here"]
    assert rows[0].speed_up == 1.0
    assert rows[0].output == (64, 48)
    assert "| m | gone | fp16 | no such device |" in absent_table(absent)
    assert len(rows_table(rows).splitlines()) == 4


def test_every_engine_is_a_candidate():
    entry = Entry("realtime", 2, "fidelity", "MIT", 1, 1.0, {}, {}, {})
    kinds = {(one.backend, one.precision) for one in candidates_of([entry], 1)}
    assert {name.split()[0] for name, _ in kinds} == {"ONNX", "OpenVINO", "PyTorch", "TensorRT"}
    assert {("PyTorch cuda compiled", "fp16"), ("PyTorch cpu compiled", "fp32")} <= kinds


def test_one_engine_or_device_can_be_chosen():
    entry = Entry("realtime", 2, "fidelity", "MIT", 1, 1.0, {}, {}, {})
    (only,) = candidates_of([entry], 1, "openvino", "gpu")
    assert (only.backend, only.precision) == ("OpenVINO gpu", "fp16")
    assert {one.backend for one in candidates_of([entry], 1, "onnxruntime", "cpu")} == {
        "ONNX Runtime cpu"
    }
    assert all(one.cuda for one in candidates_of([entry], 1, device="cuda"))
    with pytest.raises(UsageError, match="--backend torch --device coreml"):
        candidates_of([entry], 1, "torch", "coreml")


@given(st.lists(st.tuples(st.integers(1, 9), st.none() | st.integers(30, 35)), max_size=12))
def test_the_frontier_is_what_no_network_as_fast_equals(given):
    placed = [Placed(str(i), median, None, set14) for i, (median, set14) in enumerate(given)]
    best = frontier(placed)
    for of in (lambda one: one.median, lambda one: one.set14):
        assert [of(one) for one in best] == sorted({of(one) for one in best})
    for one in (one for one in placed if one.set14 is not None):
        assert any(b.median <= one.median and b.set14 >= one.set14 for b in best)


def test_the_table_of_networks_is_sorted_and_marks_ours():
    text = placed_table(
        [Placed("slow", 2.0, None, 33.0), Placed("mine", 0.05, 37.0, 32.8, ours=True)],
        {"slow": 2, "mine": 9},
    )
    lines = text.splitlines()
    assert lines[2] == "| **mine** | 50.0 | 9 | 37.00 | 32.80 |"
    assert lines[3] == "| slow | 2000 | 2 | unknown | 33.00 |"


# A process of its own: one that has done much fills its new arrays from memory it kept.
PEAK = """
import numpy as np
from paragonsr2.measure.memory import PeakMemory
with PeakMemory() as peak:
    held = np.ones(256 << 20, np.uint8)
    del held
print(peak.bytes / (256 << 20))
"""


def test_the_peak_of_memory_is_seen_although_it_is_free_again():
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert 0.9 < float(run.stdout) < 1.5


def test_memory_is_unknown_before_it_is_watched():
    assert memory.PeakMemory().bytes is None


def test_without_pytorch_the_memory_of_a_gpu_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with memory.PeakMemory(cuda=True) as peak:
        pass
    assert peak.bytes is None


# Published sizes, thousands of parameters at x2.
BY_HAND = {
    "ESPCN": 21, "FSRCNN": 12, "VDSR": 665, "IMDN_RTC": 20, "IMDN": 694, "RLFN": 527, "PAN": 261,
}  # fmt: skip


def row(name, kparams, **more):
    return peers.PeerRow(
        name, kparams, **{**dict.fromkeys(("gmacs", "set5", "set14")), **more}, source=""
    )


@pytest.mark.parametrize("name", BY_HAND)
def test_networks_written_here_have_the_published_size(name):
    network = peers.build_peer(row(name, BY_HAND[name]))
    assert type(network).__module__ == peer_networks.__name__
    channels = peers.RECIPES[name].channels
    x = torch.rand(1, channels, 24, 32)
    with torch.no_grad():
        assert network(x).shape == (1, channels, 48, 64)


def test_other_sizes_are_refused():
    with pytest.raises(ExportError, match="size does not match"):
        peers.build_peer(row("ESPCN", 30))
    with pytest.raises(ExportError, match="has this architecture"):
        peers.build_peer(row("Unheard-of", 30))
    assert peers.size_matches((12.8, 12.46), 12)
    assert not peers.size_matches((103.1,), 100)
    assert peers.size_matches((102.9,), 100)


def test_without_spandrel_the_extra_is_named(monkeypatch):
    for name in [key for key in sys.modules if key.split(".")[0] == "spandrel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(MissingExtraError, match=r"paragonsr2\[spandrel\]"):
        peers.build_peer(row("Compact", 601))


def test_span_is_folded_once_and_stays_the_same(spandrel):
    recipe = peers.RECIPES["SPAN-S"]
    from spandrel.architectures.SPAN import SPAN

    torch.manual_seed(0)
    whole = SPAN(**recipe.options).eval()
    folded = peers.build_peer(row("SPAN-S", 412))
    x = torch.rand(1, 3, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), whole(x), atol=1e-4, rtol=1e-4)


def test_the_stand_in_is_gone_afterwards(spandrel):
    assert "torchvision" not in sys.modules or hasattr(sys.modules["torchvision"], "__version__")


@pytest.mark.parametrize("variant", ["realtime", "stream", "photo"])
def test_uncollapsed_is_the_same_network(variant):
    network = stirred(build(variant, 2), 0.02).double()
    x = torch.rand(1, 3, 13, 17, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(peers.uncollapsed(network).double()(x), expected)


def test_tables_of_peers_are_checked(tmp_path):
    path = tmp_path / "peers.json"
    path.write_text(
        json.dumps([{"name": "bicubic", "kparams_x2": 0.0}, {"name": "A", "kparams_x2": 3}])
    )
    (only,) = peers.read_peers(path)
    assert (only.name, only.set14) == ("A", None)
    for content in ("{", '[{"name": "A"}]', "[3]", "7"):
        path.write_text(content)
        with pytest.raises(UsageError, match="not a table of networks"):
            peers.read_peers(path)
    with pytest.raises(UsageError, match="cannot read"):
        peers.read_peers(tmp_path / "none.json")


def test_work_that_the_peak_cannot_do_in_time_is_not_begun():
    heavy = row("HAT", 20600, gmacs=5810.0)
    assert peers.least_seconds(heavy, 360, 640, 1e12) == pytest.approx(11.62)
    assert peers.least_seconds(heavy, 180, 320, 1e12) == pytest.approx(11.62 / 4)
    assert row("X", 1000).least_gmacs(360, 640) == pytest.approx(230.4)


def test_the_machine_has_a_peak():
    assert speed.matrix_peak(side=64, calls=1) > 0


def test_beside_a_spandrel_network(spandrel):
    torch.manual_seed(0)
    content = trained_form("realtime", SIZE)
    ours = Ours("mine", "realtime", 16.8, 37.0, 32.8, {"ONNX Runtime": open_onnx(content)})
    table = [
        row("Compact", 601, set14=40.0), row("Compact", 900), row("PFT", 19600),
        row("HAT", 20600, gmacs=1e9), row("ESPCN", 21, set14=20.0),
    ]  # fmt: skip
    # A second row of the same name, of another size, must not take the first one's timing.
    table[1] = replace(table[1], name="SAFMN")
    compared = compare([ours], table, SIZE, open_onnx, Patience(calls=2), say_nothing)
    result = compared.result
    assert [p["name"] for p in result["peers"]] == ["Compact", "ESPCN"]
    reasons = {one["name"]: one["reason"] for one in result["not_timed"]}
    assert "size does not match" in reasons["SAFMN"]
    assert "has this architecture" in reasons["PFT"]
    assert "limit" in reasons["HAT"]
    (mine,) = result["ours"]
    assert mine["not_collapsed"]["calls"] == 2
    assert {p["name"] for p in mine["faster_and_better"]} <= {"Compact"}
    assert "share_of_peak" in mine["engines"]["ONNX Runtime"]
    assert [p.name for p in compared.placed] == ["mine", "Compact", "ESPCN"]
    assert "**mine**" in compared.text
    assert "PFT" in compared.text


def test_peers_that_do_not_fit_together_are_timed_one_after_the_other(monkeypatch):
    torch.manual_seed(0)
    content = trained_form("realtime", SIZE)
    ours = Ours("mine", "realtime", 16.8, 37.0, 32.8, {"ONNX Runtime": open_onnx(content)})
    free = iter(range(1000, 0, -500))  # all of it at the start, then half of it
    monkeypatch.setattr(side_by_side, "available_memory", lambda: next(free))
    table = [row("ESPCN", 21), row("FSRCNN", 12)]
    compared = compare([ours], table, SIZE, open_onnx, Patience(calls=2), say_nothing)
    assert [p["calls"] for p in compared.result["peers"]] == [2, 2]
    assert compared.result["ours"][0]["engines"]["ONNX Runtime"]["calls"] == 4


def test_the_plot_names_every_network_and_is_the_same_again(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    placed = [
        Placed("ours", 0.09, 37.2, 32.83, ours=True),
        *(Placed(f"net{i}", 0.1 * (1 + i % 3), 38.0, 33.0 + 0.01 * i) for i in range(8)),
        Placed("unknown quality", 2.0, None, None),
    ]
    files = plot_quality_speed(placed, "title", tmp_path / "plot")
    assert [file.name for file in files] == ["plot.svg", "plot.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    before = [file.read_bytes() for file in files]
    assert [
        f.read_bytes() for f in plot_quality_speed(placed, "title", tmp_path / "plot")
    ] == before
    svg = before[0].decode()
    assert all(f"<!-- {one.name}" in svg for one in placed)


def test_the_command(tmp_path, monkeypatch):
    model = find("realtime", 2)
    # Compiling takes long and is PyTorch's own; that it is asked for is tested above.
    monkeypatch.setattr(
        "paragonsr2.cli.candidates.candidates_of",
        lambda *given: [c for c in candidates_of(*given) if "cpu compiled" not in c.backend],
    )
    table = tmp_path / "peers.json"
    table.write_text(json.dumps([{"name": "ESPCN", "kparams_x2": 21.0, "psnr_y_x2_Set14": 32.4}]))
    output = tmp_path / "speed" / "b.json"
    args = ["benchmark", "--model", model.name, "--resolution", "32x24", "--calls", "2",
            "--baselines", "--json", "--peers", str(table), "--peer-resolution", "32x24",
            "-o", str(output)]  # fmt: skip
    run = CliRunner().invoke(app, args)
    assert run.exit_code == 0, run.output
    assert "32x24: turn 2 of" in run.stderr
    result = json.loads(run.stdout)
    kept = json.loads(output.read_text())
    assert kept["machine"]["processor"]
    assert {k: kept[k] for k in result} == result
    backends = {(row["model"], row["backend"]) for row in result["rows"]}
    assert (model.name, "ONNX Runtime cpu") in backends
    assert (model.name, "PyTorch cpu eager") in backends
    assert ("bicubic", "numpy") in backends
    reasons = {one["backend"]: one["reason"] for one in result["absent"]}
    assert reasons["TensorRT"]
    assert result["beside_peers"]["peers"][0]["name"] == "ESPCN"
    assert [one["name"] for one in result["beside_peers"]["ours"]] == [model.model]
    text = output.with_suffix(".md").read_text()
    assert "| ESPCN |" in text
    assert "TensorRT" in text
    assert output.with_name("b_quality_speed.svg").exists()


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """An engine file for up to 64x48 pixels, and a TensorRT that runs it on the processor."""
    gpu = Gpu("NVIDIA Test 1", "8.9")
    sizes = [InputSize(height=24 * i, width=32 * i) for i in (1, 1, 2)]
    content = {"shapes": {"input": [(1, 3, size.height, size.width) for size in sizes]}}
    path = tmp_path / "m.engine"
    path.write_text(json.dumps(content))
    identity = EngineIdentity("0" * 64, "10.16.1.11", gpu, Profile(*sizes), "fp16")
    digest = sha256(path.read_bytes()).hexdigest()
    tensors, metadata = {"input": "fp32", "output": "fp32"}, {"tile_halo": "8"}
    write_description(
        path,
        EngineDescription(
            identity, digest, "m.onnx", 2, "input", "output", tensors, {"fp16": 1}, metadata
        ),
    )
    monkeypatch.setattr(backend, "load_tensorrt", lambda: FakeTensorRt("10.16.1.11"))
    monkeypatch.setattr(backend, "find_gpu", lambda _: ("cpu", gpu))
    stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    return path


def test_an_engine_file_is_timed(engine, tmp_path):
    args = ["benchmark", "--model", str(engine), "--resolution", "32x24", "--resolution", "48x99",
            "--calls", "2", "--json", "-o", str(tmp_path / "b.json")]  # fmt: skip
    run = CliRunner().invoke(app, args)
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    (row,) = result["rows"]
    assert (row["model"], row["backend"], row["precision"]) == ("m.engine", "TensorRT", "fp16")
    assert (row["input"], row["output"]) == ([32, 24], [64, 48])
    assert row["calls"] == 2
    # The engine is too small for the second resolution, and says so.
    (absent,) = result["absent"]
    assert (absent["model"], absent["backend"]) == ("m.engine", "TensorRT")
    assert "--max" in absent["reason"]


WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "openvino"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Refuse())
from paragonsr2.cli.main import app
app(["benchmark", *sys.argv[1:]])
"""


def test_the_core_install_times_what_it_can(tmp_path):
    args = ["--model", "paragonsr2_realtime_x2_fidelity", "--resolution", "32x24", "--calls", "1",
            "--warmup", "0", "--json", "-o", str(tmp_path / "b.json")]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *args], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert ("ONNX Runtime cpu", "fp32") in {(r["backend"], r["precision"]) for r in result["rows"]}
    reasons = {one["backend"]: one["reason"] for one in result["absent"]}
    assert "paragonsr2[torch]" in reasons["PyTorch cpu eager"]
    assert "--model FILE.engine" in reasons["TensorRT"]


def test_an_engine_without_its_description_is_refused(engine):
    engine.with_name("m.engine.json").unlink()
    run = CliRunner().invoke(app, ["benchmark", "--model", str(engine)])
    assert isinstance(run.exception, WeightsError)


def test_without_the_repository_peers_are_refused_before_anything_is_timed(monkeypatch, tmp_path):
    monkeypatch.setattr("paragonsr2.cli.benchmark._ROOT", tmp_path)
    run = CliRunner().invoke(app, ["benchmark", "--peers", "peers.json"])
    assert isinstance(run.exception, UsageError)
    assert "benchmark_release.py" in str(run.exception)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--resolution", "12"], "is not a resolution"),
        (["--model", "unheard"], "no model 'unheard'"),
        (["--model", "paragonsr2_realtime_x8_fidelity", "--peers", "t.json"], "compares at x2"),
    ],
)
def test_what_cannot_be_is_refused(args, message):
    run = CliRunner().invoke(app, ["benchmark", *args])
    assert isinstance(run.exception, UsageError)
    assert message in str(run.exception)


def test_the_front_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark_release.py", "--resolution", "12"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "benchmark_release.py"), run_name="__main__")
    assert left.value.code == 2
    assert "is not a resolution" in capsys.readouterr().err
