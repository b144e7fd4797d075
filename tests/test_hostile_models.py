"""Model files of strangers: a line each, no code, no memory, no time."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile

import pytest
import torch
from onnx import TensorProto, helper

from conftest import ROOT, stirred
from fuzz.hostile_models import (
    WRONG_METADATA,
    enlarging,
    hostile_pickle,
    hostile_safetensors,
)
from paragonsr2.errors import BackendError, OutputError, ParagonError, WeightsError
from paragonsr2.network.generator import build
from paragonsr2.upscale.backends import OnnxBackend
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights import limited
from paragonsr2.weights.graph_check import examine, graph_scale
from paragonsr2.weights.limited import run_limited
from paragonsr2.weights.metadata import read_facts
from paragonsr2.weights.pickled import _write_plain, read_pickled
from paragonsr2.weights.store import load_checkpoint
from test_cli import fails_cleanly, run

EXAMINE = """
import json
from fuzz.hostile_models import ONNX_KINDS, hostile_onnx
from paragonsr2.errors import ParagonError
from paragonsr2.weights.graph_check import examine
from paragonsr2.weights.limited import answer

def work():
    told = {}
    for number in range(2 * (len(ONNX_KINDS) + 1)):
        kind, content = hostile_onnx(number, 5)
        if kind in ("spoiled", "wrong_metadata"):
            continue
        try:
            told[f"{kind} {number}"] = f"x{examine(content, kind)}"
        except ParagonError as error:
            told[f"{kind} {number}"] = str(error)
    return told

answer(work)
"""


def test_hostile_graphs_are_refused_before_they_take_anything():
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", EXAMINE], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)["answer"]
    assert len(told) > 25
    for kind, message in told.items():
        assert len(message.splitlines()) == 1, kind
        assert message != "x2", kind


def if_model():
    """What does no harm, and is built of an operator that could do any."""
    branch = [
        helper.make_graph(
            [helper.make_node("Identity", ["d"], [name])], name, [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "H", "W"])],
        )
        for name in "ab"
    ]  # fmt: skip
    model = enlarging(
        [helper.make_node("If", ["yes"], ["more"], then_branch=branch[0], else_branch=branch[1])]
    )
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(yes)
    return model.SerializeToString()


def test_control_flow_needs_trust(tmp_path):
    (tmp_path / "m.onnx").write_bytes(if_model())
    refused = run("inspect", tmp_path / "m.onnx")
    fails_cleanly(refused, 3)
    assert "uses If" in refused.stderr
    assert "--trust-model" in refused.stderr
    with pytest.raises(WeightsError, match="uses If"):
        Upscaler(tmp_path / "m.onnx")
    assert Upscaler(tmp_path / "m.onnx", trust_model=True).scale == 2
    assert run("inspect", tmp_path / "m.onnx", "--trust-model").returncode == 0


@pytest.mark.parametrize("scale", [2, 3, 7])
def test_a_scale_is_inferred_and_nothing_runs(scale, monkeypatch):
    import onnxruntime

    def ran(*_: object) -> None:
        pytest.fail("the model was run")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", ran)
    assert examine(enlarging(scale=scale).SerializeToString(), "m") == scale


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (enlarging(scale=1), "does not enlarge"),
        (enlarging(channels=1), "does not enlarge RGB"),
        (enlarging(shape=(0, 3, "h", "w")), "takes 0x3"),
        (enlarging(shape=(1, 1, "h", "w")), "takes 1x1"),
        (enlarging(shape=(1, 3, 64, 48)), "48x64 alone"),
        (enlarging(shape=()), "takes numbers"),
    ],
)
def test_what_does_not_enlarge_rgb_is_told(model, said):
    with pytest.raises(BackendError, match=said):
        examine(model.SerializeToString(), "m")


def test_a_scale_that_is_not_the_graphs_is_told(tmp_path):
    content = enlarging(metadata={"scale": "4"}).SerializeToString()
    with pytest.raises(WeightsError, match="enlarges x2, and its metadata says x4"):
        OnnxBackend(content, device="cpu")


@pytest.mark.parametrize("metadata", WRONG_METADATA, ids=lambda m: str(m)[:32])
def test_wrong_metadata_is_one_line(metadata):
    if metadata == {"scale": "3"}:
        return  # a scale like any other, here
    with pytest.raises(WeightsError) as told:
        read_facts(metadata, "m.onnx")
    assert len(str(told.value)) < 200
    assert "m.onnx" in str(told.value)
    assert next(iter(metadata)) in str(told.value)


def test_what_a_file_does_not_say_is_cautious():
    facts = read_facts({}, "m")
    assert (facts.scale, facts.variant, facts.training) == (None, None, {})
    assert facts.needs.halo >= 32


def module(folder, monkeypatch, text):
    (folder / "stranger.py").write_text(
        f"from paragonsr2.errors import *\nfrom paragonsr2.weights.limited import answer\n{text}"
    )
    monkeypatch.syspath_prepend(str(folder))
    return "stranger"


def test_a_limited_process_answers_or_says_what_it_raised(tmp_path, monkeypatch):
    assert run_limited(module(tmp_path, monkeypatch, "answer(lambda: [1])"), label="m") == [1]
    text = "def work():\n    raise BackendError('no')\nanswer(work)"
    with pytest.raises(BackendError, match=r"^no$"):
        run_limited(module(tmp_path, monkeypatch, text), label="m")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")
def test_memory_is_limited(tmp_path, monkeypatch):
    text = "answer(lambda: len(bytearray(5 << 30)))"
    with pytest.raises(WeightsError, match="more than 4 GB"):
        run_limited(module(tmp_path, monkeypatch, text), label="m")


def test_a_crash_is_one_line(tmp_path, monkeypatch):
    text = "import os\nos.abort()"
    with pytest.raises(WeightsError, match="breaks the library") as told:
        run_limited(module(tmp_path, monkeypatch, text), label="m")
    assert "\n" not in str(told.value)


def test_time_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(limited, "SECONDS", 0.2)
    text = "import threading\nthreading.Event().wait()"
    with pytest.raises(WeightsError, match="takes longer than"):
        run_limited(module(tmp_path, monkeypatch, text), label="m")


@pytest.mark.parametrize("number", range(19))
@pytest.mark.filterwarnings("ignore")
def test_hostile_pickles_are_one_line(number, tmp_path):
    kind, content = hostile_pickle(number, 5, str(tmp_path / "ran"))
    if kind == "old_form" or kind.startswith("spoiled"):
        pytest.skip("it is allocated before it is read, or may be whole")
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pth") as told:
        load_checkpoint(path, trusted=True)
    assert len(str(told.value).splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def test_a_pickle_is_the_same_from_the_limited_process(tmp_path):
    state = stirred(build("realtime", 2)).state_dict()
    # Tensors that share their memory, as other trainers save them.
    state["conv_in.bias"] = torch.zeros(64)[:16]
    torch.save({"params": state}, tmp_path / "x.pth")
    read = read_pickled(tmp_path / "x.pth")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_no_room_to_unpack_a_pickle_is_one_line(tmp_path, monkeypatch):
    torch.save(build("realtime", 2).state_dict(), tmp_path / "x.pth")
    with pytest.raises(OutputError, match="TMPDIR"):
        _write_plain(tmp_path / "x.pth", tmp_path / "none" / "tensors.safetensors")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputError, match="TMPDIR"):
        read_pickled(tmp_path / "x.pth")


def test_a_pickle_that_lies_about_its_size_is_one_line(tmp_path):
    (tmp_path / "x.pth").write_bytes(hostile_pickle(6, 5, "ran")[1])
    fails_cleanly(run("inspect", tmp_path / "x.pth"), 3)


@pytest.mark.parametrize("number", range(45))
def test_hostile_safetensors_are_one_line_or_a_network(number, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(hostile_safetensors(number, 5)[1])
    told = ""
    try:
        load_checkpoint(path)
    except ParagonError as error:
        told = str(error)
    assert len(told.splitlines()) <= 1
    assert len(told) < 400


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a program")
def test_inspecting_a_few_bytes_takes_no_memory(tmp_path):
    from fuzz.hostile_models import _filled

    path = tmp_path / "m.onnx"
    path.write_bytes(_filled(random.Random(1)).SerializeToString())
    process = subprocess.Popen(
        [sys.executable, "-m", "paragonsr2", "inspect", path], stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 3
    assert usage.ru_maxrss < 1_500_000  # it inherits the peak of the tests


def test_the_scale_of_our_own_models_is_found(tmp_path):
    from paragonsr2.weights.catalogue import bundled_bytes, find

    assert graph_scale(bundled_bytes(find("realtime", 4), "onnx"), "m") == 4
