"""Checkpoints: round trips, strictness, and what must never run."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from conftest import stirred
from paragonsr2.errors import WeightsError
from paragonsr2.network.generator import ALPHA_KEY, build
from paragonsr2.variants import VARIANTS
from paragonsr2.weights.pickled import WRAPPERS
from paragonsr2.weights.store import load_checkpoint, save_checkpoint


def same(a, b, atol=0.0):
    x = torch.rand(1, 3, 17, 20)
    with torch.no_grad():
        torch.testing.assert_close(a(x), b(x), atol=atol, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_round_trip(tmp_path, variant, scale):
    network = stirred(build(variant, scale, upsampler_alpha=0.3))
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, network, variant, {"steps": 7})
    loaded = load_checkpoint(path, arch=f"paragonsr2_{variant}", scale=scale)
    same(network, loaded.network)
    assert loaded.description.upsampler_alpha == 0.3
    assert loaded.training == {"steps": 7}
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["arch"] == f"paragonsr2_{variant}"


@pytest.mark.parametrize("collapsed", [False, True])
def test_a_state_from_before_contexts_computes_what_it_did(tmp_path, collapsed):
    network = stirred(build("realtime", 2))
    plain = {key: value for key, value in network.state_dict().items() if ".context." not in key}
    for group in network.groups:
        for block in group.blocks:
            block.context = torch.nn.Sequential()
    state = network.collapse().state_dict() if collapsed else plain
    save_file(state, tmp_path / "x.safetensors")
    # Through a convolution that changes nothing, the next may take another order of sums.
    same(network, load_checkpoint(tmp_path / "x.safetensors").network, 1e-5 if collapsed else 0)


def test_half_of_the_contexts_is_refused(tmp_path):
    state = build("realtime", 2).state_dict()
    del state[next(key for key in state if ".context." in key)]
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="lacks 1 tensors"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_deployed_form_round_trip(tmp_path):
    network = stirred(build("realtime", 2)).collapse()
    save_checkpoint(tmp_path / "x.safetensors", network, "realtime")
    loaded = load_checkpoint(tmp_path / "x.safetensors")
    assert loaded.network.is_collapsed
    same(network, loaded.network)


@pytest.mark.parametrize("wrapper", [*WRAPPERS, None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_foreign_wrappers_are_read(tmp_path, wrapper, prefix):
    network = stirred(build("stream", 3, expansion=3))
    state = {prefix + key: value for key, value in network.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "x.pth")
    loaded = load_checkpoint(tmp_path / "x.pth", trusted=True)
    assert loaded.description.scale == 3
    assert loaded.description.expansion == 3
    same(network, loaded.network)


def test_convolutions_trained_as_they_deploy_round_trip(tmp_path):
    network = stirred(build("photo", 2, expansion=0))
    save_checkpoint(tmp_path / "x.safetensors", network, "photo")
    loaded = load_checkpoint(tmp_path / "x.safetensors")
    assert loaded.description.expansion == 0
    assert not loaded.network.is_collapsed
    same(network, loaded.network)


def test_alpha_may_be_told_where_the_file_does_not_say_it(tmp_path):
    network = stirred(build("realtime", 2, upsampler_alpha=0.5))
    torch.save(network.state_dict(), tmp_path / "x.pth")
    same(network, load_checkpoint(tmp_path / "x.pth", upsampler_alpha=0.5, trusted=True).network)
    save_checkpoint(tmp_path / "x.safetensors", network, "realtime")
    with pytest.raises(WeightsError, match=r"upsampler_alpha 0\.5"):
        load_checkpoint(tmp_path / "x.safetensors", upsampler_alpha=0.1)


def test_another_variant_or_scale_is_refused(tmp_path):
    save_checkpoint(tmp_path / "x.safetensors", build("realtime", 2), "realtime")
    with pytest.raises(WeightsError, match="holds variant 'realtime'"):
        load_checkpoint(tmp_path / "x.safetensors", arch="photo")
    with pytest.raises(WeightsError, match="enlarges x2"):
        load_checkpoint(tmp_path / "x.safetensors", scale=4)


def mutate(state, how):
    key = "fuse.weight"
    if how == "missing":
        del state[key]
    elif how == "extra":
        state["stranger"] = torch.zeros(1)
    elif how == "shape":
        state[key] = state[key][:, :8].contiguous()
    elif how == "nan":
        state[key][0, 0] = float("nan")


@pytest.mark.parametrize("how", ["missing", "extra", "shape", "nan"])
def test_loading_is_strict(tmp_path, how):
    state = build("realtime", 2).state_dict()
    mutate(state, how)
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError):
        load_checkpoint(tmp_path / "x.safetensors")


def test_metadata_that_contradicts_the_tensors_is_refused(tmp_path):
    state = build("realtime", 2).state_dict()
    save_file(state, tmp_path / "x.safetensors", {"variant": "realtime", "scale": "4"})
    with pytest.raises(WeightsError, match="x2, not x4"):
        load_checkpoint(tmp_path / "x.safetensors")
    save_file(state, tmp_path / "y.safetensors", {"variant": "photo", "scale": "2"})
    with pytest.raises(WeightsError, match=r"not of variant|inspect"):
        load_checkpoint(tmp_path / "y.safetensors")


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (self.target, "w")


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_that_runs_code_does_not_run(tmp_path, writer):
    target = tmp_path / "ran"
    path = tmp_path / "x.pth"
    if writer == "torch":
        torch.save({"params": Bomb(str(target))}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(str(target))))
    with pytest.raises(WeightsError, match="refused"):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"nonsense" * 100])
def test_damaged_files_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        load_checkpoint(path)
    with pytest.raises(WeightsError, match="no checkpoint"):
        load_checkpoint(tmp_path / f"none{suffix}")


def test_a_foreign_network_is_refused(tmp_path):
    torch.save({"params": {"body.0.weight": torch.zeros(3, 3)}}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="no ParagonSR2"):
        load_checkpoint(tmp_path / "x.pth", trusted=True)
    torch.save({"params": {"a": 1}}, tmp_path / "y.pth")
    with pytest.raises(WeightsError):
        load_checkpoint(tmp_path / "y.pth")


def test_alpha_travels_in_the_state(tmp_path):
    network = stirred(build("realtime", 2, upsampler_alpha=0.3))
    for form in (network, network.collapse()):
        torch.save({"params_ema": form.state_dict()}, tmp_path / "x.pth")
        loaded = load_checkpoint(tmp_path / "x.pth", upsampler_alpha=0.3, trusted=True)
        assert loaded.description.upsampler_alpha == 0.3
        same(form, loaded.network)
    with pytest.raises(WeightsError, match=r"alpha 0\.3, not 0\.6; drop"):
        load_checkpoint(tmp_path / "x.pth", upsampler_alpha=0.6, trusted=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_alpha_survives_a_cast_of_the_file(tmp_path, dtype):
    network = build("realtime", 2, upsampler_alpha=0.35)
    torch.save({k: v.to(dtype) for k, v in network.state_dict().items()}, tmp_path / "x.pth")
    loaded = load_checkpoint(tmp_path / "x.pth", trusted=True)
    assert loaded.description.upsampler_alpha == 0.35
    assert float(network.half().state_dict()[ALPHA_KEY]) == pytest.approx(0.35, abs=1e-7)


def test_a_state_from_before_alpha_was_in_it_loads(tmp_path):
    network = stirred(build("realtime", 2, upsampler_alpha=0.3))
    state = network.state_dict()
    del state[ALPHA_KEY]
    save_file(state, tmp_path / "x.safetensors", {"upsampler_alpha": "0.3"})
    same(network, load_checkpoint(tmp_path / "x.safetensors").network)
    again = build("realtime", 2, upsampler_alpha=0.3)
    again.load_state_dict(state)
    same(network, again)
    del state["fuse.weight"]
    with pytest.raises(RuntimeError, match=r"fuse\.weight"):
        again.load_state_dict(state)


def test_a_contradicting_alpha_is_refused(tmp_path):
    state = build("realtime", 2, upsampler_alpha=0.3).state_dict()
    with pytest.raises(RuntimeError, match=r"trained with upsampler_alpha 0\.3"):
        build("realtime", 2).load_state_dict(state)
    save_file(state, tmp_path / "x.safetensors", {"upsampler_alpha": "0.5"})
    with pytest.raises(WeightsError, match=r"alpha 0\.3, not 0\.5"):
        load_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "stored", [torch.tensor(float("nan")), torch.tensor(2.0), torch.tensor(1), torch.zeros(1)]
)
def test_an_alpha_that_is_none_is_refused(tmp_path, stored):
    state = build("realtime", 2).state_dict()
    save_file({**state, ALPHA_KEY: stored}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="single float from 0 to 1"):
        load_checkpoint(tmp_path / "x.safetensors")
