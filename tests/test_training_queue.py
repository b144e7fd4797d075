"""The queue of training runs: stopped, carried to another machine, finished."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from conftest import ROOT, photo_like
from paragonsr2.errors import ConfigError, ParagonError, TrainingError
from paragonsr2.training.state import STATE_FILE, pack, read_state, unpack

sys.path.append(str(ROOT / "tools"))
from training_queue import COMMIT_FILE, Queue, read_queue

CONFIG = """
[network]
variant = "realtime"
scale = 2
[data]
train = ["data"]
val = "data"
patch = 12
batch = 2
[schedule]
steps = {steps}
warmup = 2
[run]
output = "runs/small"
device = "cpu"
threads = 1
validate_every = 2
"""


@pytest.fixture
def repository(tmp_path):
    """A repository with pictures, a configuration and a queue of it."""
    root = tmp_path / "repository"
    (root / "data").mkdir(parents=True)
    Image.fromarray(photo_like(60, 80)).save(root / "data" / "0.png")
    (root / "small.toml").write_text(CONFIG.format(steps=4))
    (root / "queue.toml").write_text('[[run]]\nconfig = "small.toml"\n')
    (root / ".gitignore").write_text("runs/\n")
    commit(root)
    return root


def commit(root):
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def test_a_run_goes_on_from_its_copy_with_the_code_it_began_with(repository, monkeypatch):
    monkeypatch.chdir(repository)
    assert Queue(repository / "queue.toml", repository).train()
    run = repository / "runs" / "small"
    began = (run / COMMIT_FILE).read_text()
    records = (run / "validation.jsonl").read_text()

    # Later the code has moved on, and the folder of runs is gone, clones and all.
    (repository / "small.toml").write_text(CONFIG.format(steps=2))
    commit(repository)
    shutil.rmtree(repository / "runs")
    queue = repository / "queue.toml"
    queue.write_text('[[run]]\nconfig = "small.toml"\noverrides = ["schedule.steps=6"]\n')
    assert Queue(queue, repository).train()
    assert (run / COMMIT_FILE).read_text() == began
    assert (run / "validation.jsonl").read_text().startswith(records)
    assert read_state(run / STATE_FILE)["step"] == 6


def test_a_stopped_queue_leaves_a_copy(repository):
    (repository / "small.toml").write_text(CONFIG.format(steps=100000))
    commit(repository)
    command = [sys.executable, str(ROOT / "tools" / "training_queue.py"), "queue.toml"]
    # The tool works on its own repository; a copy of it here makes this one its own.
    (repository / "tools").mkdir()
    command[1] = shutil.copy(command[1], repository / "tools")
    process = subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "step 2  validation" in line:
            process.terminate()
            break
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 0, rest
    assert unpack(repository / "small.state", repository / "elsewhere") >= 2
    assert json.loads((repository / "elsewhere" / "validation.jsonl").read_text().splitlines()[0])


def test_a_failed_run_is_told(repository, monkeypatch):
    monkeypatch.chdir(repository)
    (repository / "data" / "0.png").unlink()
    with pytest.raises(ParagonError, match="small failed with exit code"):
        Queue(repository / "queue.toml", repository).train()


@pytest.mark.parametrize("text", ["", "x = 1", "[[run]]\nconfig = 'a'\nmore = 1", "[[run]]", "["])
def test_what_is_no_queue_is_refused(tmp_path, text):
    (tmp_path / "queue.toml").write_text(text)
    with pytest.raises(ConfigError):
        read_queue(tmp_path / "queue.toml")


def test_a_packed_state_is_small_and_hostile_ones_are_refused(repository, monkeypatch, tmp_path):
    monkeypatch.chdir(repository)
    Queue(repository / "queue.toml", repository).train()
    run = repository / "runs" / "small"
    state = torch.load(run / STATE_FILE, weights_only=True)
    packed = tmp_path / "packed"
    packed.write_bytes(pack(run))
    back = torch.load(packed, weights_only=True)
    for key, moments in back["optimizers"][0]["state"].items():
        whole = state["optimizers"][0]["state"][key]
        torch.testing.assert_close(
            moments["exp_avg"].float(), whole["exp_avg"], rtol=2**-8, atol=1e-12
        )
    with pytest.raises(TrainingError, match="not a packed state"):
        unpack(run / STATE_FILE, tmp_path / "out")
    torch.save({**back, "files": {"../outside": torch.zeros(1, dtype=torch.uint8)}}, packed)
    with pytest.raises(TrainingError, match="outside"):
        unpack(packed, tmp_path / "out")
    assert not (tmp_path / "outside").exists()


def test_one_run_of_a_queue_can_be_trained_beside_the_others(repository):
    for name in ("first", "second"):
        text = CONFIG.format(steps=2).replace("runs/small", f"runs/{name}")
        (repository / f"{name}.toml").write_text(text)
    commit(repository)
    queue = repository / "queue.toml"
    queue.write_text('[[run]]\nconfig = "first.toml"\n[[run]]\nconfig = "second.toml"\n')
    with pytest.raises(ConfigError, match="no run third; it has first, second"):
        Queue(queue, repository, only="third").train()
    assert Queue(queue, repository, only="second").train()
    assert sorted(path.name for path in (repository / "runs").iterdir()) == ["code", "second"]
