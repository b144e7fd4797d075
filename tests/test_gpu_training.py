"""The trainer for a few minutes of a GPU, on the CPU: its steps are the ordinary trainer's."""

from __future__ import annotations

import json
import sys
import tomllib

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import ROOT
from paragonsr2.measure.quality import shrink as protocol
from paragonsr2.network.generator import build
from paragonsr2.training.average import Ema
from paragonsr2.training.config import ScheduleConfig
from paragonsr2.training.optimizer import build_optimizers
from paragonsr2.weights.store import load_checkpoint

sys.path.append(str(ROOT / "tools"))
import gpu_training
from resident import Resident, shrink


def noise(height, width):
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_pictures_are_shrunk_by_the_protocol(scale):
    picture = noise(96, 72)
    np.testing.assert_array_equal(
        shrink(torch.from_numpy(picture), scale).numpy(), protocol(picture, scale)
    )


def test_crops_of_both_resolutions_show_the_same_place():
    pictures = [noise(96, 48), noise(48, 72)]
    # So that a crop of the one can be computed from the other.
    small = {index: picture[::2, ::2].copy() for index, picture in enumerate(pictures)}
    data = Resident(pictures, [1.0, 1.0], 2, torch.device("cpu"), small)
    draws = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
    lr, hr = data.crops(draws, 12)
    assert lr.shape == (64, 3, 12, 12)
    assert hr.shape == (64, 3, 24, 24)
    squares = hr.unfold(2, 2, 2).unfold(3, 2, 2)
    # Turned and flipped, the kept sample is one of the four corners of its square.
    corners = squares.flatten(4).permute(4, 0, 1, 2, 3)
    assert ((corners == lr).flatten(2).all(2).any(0)).all()
    assert len({crop.numpy().tobytes() for crop in lr}) > 32


@pytest.mark.parametrize("variant", ["photo", "stream"])
def test_a_step_is_that_of_the_ordinary_optimisers(variant):
    torch.manual_seed(0)
    one = build(variant, 2, expansion=1)
    other = build(variant, 2, expansion=1)
    other.load_state_dict(one.state_dict())
    phases = [gpu_training.Phase(until=2.0, batch=2, patch=8)]
    run = gpu_training.Run(name="r", variant=variant, scale=2, expansion=1, phases=phases)
    flat = gpu_training.Flat(other, run)
    flat.rate.fill_(1e-3)
    optimizers = build_optimizers(one, ScheduleConfig(steps=9, optimizer="muon", lr=1e-3))
    average = Ema(one, run.ema)
    for step in range(4):
        x, y = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
        (one(x) - y).abs().mean().backward()
        ((other(x) - y).abs().mean() * flat.loss_scale).backward()
        torch.nn.utils.clip_grad_norm_(one.parameters(), gpu_training.CLIP)
        for optimizer in optimizers:
            optimizer.step()
        one.zero_grad()
        average.update(one, step)
        flat.advance()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(average.values, flat.split(flat.average), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_step_that_overflows_changes_no_weight_and_lowers_the_scale():
    network = build("realtime", 2)
    phases = [gpu_training.Phase(until=2.0, batch=2, patch=8)]
    run = gpu_training.Run(name="r", variant="realtime", scale=2, expansion=2, phases=phases)
    flat = gpu_training.Flat(network, run)
    flat.rate.fill_(1e-3)
    before = flat.values.clone()
    flat.grads.fill_(1.0)[3] = torch.inf
    flat.advance()
    assert torch.equal(flat.values, before)
    assert float(flat.skipped) == 1.0
    assert float(flat.loss_scale) == gpu_training.LOSS_SCALE / 2
    assert not flat.grads.any()


def test_a_plan_trains_and_the_next_wave_starts_from_its_weights(tmp_path, monkeypatch):
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        for index in range(2):
            Image.fromarray(noise(96, 96 + 24 * index)).save(tmp_path / folder / f"{index}.png")
    run = 'variant = "realtime"\nexpansion = 1\nphases = [{ until = 2, batch = 2, patch = 8 }]'
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'train = [{{ path = "{tmp_path}/train" }}]\nval = "{tmp_path}/val"\ndrawn = 2\n'
        f'licence = "none"\n[[wave]]\nseconds = 1\n[[wave.run]]\nname = "a"\nscale = 2\n{run}\n'
        f'[[wave]]\nseconds = 1\n[[wave.run]]\nname = "b"\nscale = 4\n{run}\n'
        'pretrain = "a.safetensors"\n'
    )
    out = tmp_path / "out"
    monkeypatch.setattr(gpu_training.CollapsibleConv, "kernel", gpu_training.CollapsibleConv.kernel)
    monkeypatch.setattr(sys, "argv", ["", str(plan), "--out", str(out), "--device", "cpu"])
    gpu_training.main()
    curves = {name: json.loads((out / f"{name}.json").read_text()) for name in "ab"}
    assert all(curve["curve"][-1]["step"] > 0 for curve in curves.values())
    assert load_checkpoint(out / "b.safetensors").network.scale == 4
    body = "groups.0.blocks.0.conv.mix"
    first, second = (load_checkpoint(out / f"{name}.safetensors").network for name in "ab")
    assert not torch.equal(first.state_dict()[body], build("realtime", 2).state_dict()[body])
    assert (first.state_dict()[body] - second.state_dict()[body]).abs().max() < 0.5


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "gpu").glob("*.toml")))
def test_plans_are_valid_and_their_last_phases_last(path):
    plan = gpu_training.Plan(**tomllib.loads(path.read_text(encoding="utf-8")))
    runs = [run for wave in plan.wave for run in wave.run]
    assert all(run.phases[-1].until > 1.0 for run in runs)
    assert len({run.name for run in runs}) == len(runs)
