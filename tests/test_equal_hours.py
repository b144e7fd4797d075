"""Comparisons by equal processor time: stopped, carried elsewhere, finished."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, photo_like

sys.path.append(str(ROOT / "tools"))
import equal_hours
from equal_hours import Candidate, Plan, Run, trained

CONFIG = """
[network]
variant = "realtime"
scale = 2
[data]
train = ["{folder}/free"]
val = "{folder}/free"
patch = 12
batch = 2
[schedule]
steps = 9
warmup = 2
[run]
output = "{folder}/runs/small"
device = "cpu"
"""


@pytest.fixture
def plan(tmp_path):
    """A plan of two seconds, on three pictures."""
    (tmp_path / "free").mkdir()
    for seed in range(3):
        Image.fromarray(photo_like(60, 80, seed=seed)).save(tmp_path / "free" / f"{seed}.png")
    (tmp_path / "small.toml").write_text(CONFIG.format(folder=tmp_path))
    return Plan(what="w", config=tmp_path / "small.toml", seconds=2.0, validations=2, run=())


def test_a_stopped_run_goes_on_from_its_copy(plan, tmp_path, monkeypatch):
    one = Candidate(name="one", what="it", sharpest=0.7)
    folder, keep = Path("runs/hours/one_0"), tmp_path / "keep"
    here, there = tmp_path / "here", tmp_path / "there"
    stopping = Run.validate

    def validate_and_stop(self, val):
        stopping(self, val)
        self.stop()

    with monkeypatch.context() as patch:
        patch.setattr(Run, "validate", validate_and_stop)
        here.mkdir()
        patch.chdir(here)
        assert trained(plan, one, 0, folder, keep) is None
    there.mkdir()
    monkeypatch.chdir(there)
    result = trained(plan, one, 0, folder, keep)
    first, last = result["curve"]
    assert 1.0 <= first["seconds"] < 2.0 <= last["seconds"] == result["seconds"]
    assert 0 < first["step"] < last["step"] == result["steps"]
    assert len(list((folder / "pictures" / "free").iterdir())) == 2
    assert result["pictures"].keys() == result["inside"].keys() == {"0", "1", "2"}
    assert (folder / "weights.safetensors").exists()


def test_the_sharpest_pictures_are_kept(tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "sharp.png")
    Image.fromarray(noise[:8, :8]).resize((64, 64)).save(folder / "soft.png")
    chosen = equal_hours.sharpest_of([folder], 0.5, tmp_path / "made")
    assert [link.name for link in chosen[str(folder)].iterdir()] == ["sharp.png"]
