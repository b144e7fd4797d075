"""The real spandrel opens our files as what they are, and leaves other files alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from benchmark.torchvision_names import torchvision_names
from conftest import stirred
from paragonsr2.errors import WeightsError
from paragonsr2.network.generator import ALPHA_KEY, ParagonSR2, build
from paragonsr2.variants import SCALES, VARIANTS
from paragonsr2.weights.store import save_checkpoint


@pytest.fixture(scope="module")
def spandrel():
    with torchvision_names():
        library = pytest.importorskip("spandrel", reason="spandrel is not installed")
    from paragonsr2.spandrel import install

    install()
    return library


@pytest.fixture
def shallow(monkeypatch):
    """All variants with one group of two blocks: what is proven does not depend on depth."""
    for name, row in VARIANTS.items():
        attending = (0,) if row.attending else ()
        small = replace(row, groups=1, blocks=2, attending=attending)
        monkeypatch.setitem(VARIANTS, name, small)


def opens_as(spandrel, path, network, variant):
    """``path`` is opened as ``network``, described rightly."""
    model = spandrel.ModelLoader().load_from_file(path)
    assert model.architecture.id == "ParagonSR2"
    assert isinstance(model.model, ParagonSR2)
    assert (model.scale, model.purpose) == (network.scale, "SR")
    assert (model.input_channels, model.output_channels) == (3, 3)
    assert (model.size_requirements.minimum, model.size_requirements.multiple_of) == (1, 1)
    assert model.supports_half
    assert model.supports_bfloat16
    assert model.tags == [variant, f"{VARIANTS[variant].channels}ch"]
    tileable = not VARIANTS[variant].global_pool
    assert (model.tiling is spandrel.ModelTiling.SUPPORTED) == tileable
    assert model.model.upsampler_alpha == network.upsampler_alpha
    x = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(x), network(x).clamp(0, 1), atol=0, rtol=0)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_variant_scale_form_and_file(spandrel, shallow, tmp_path, variant, scale):
    trained = stirred(build(variant, scale, upsampler_alpha=0.3))
    for form in (trained, trained.collapse()):
        save_checkpoint(tmp_path / "x.safetensors", form, variant)
        opens_as(spandrel, tmp_path / "x.safetensors", form, variant)
        torch.save({"params_ema": form.state_dict()}, tmp_path / "x.pth")
        opens_as(spandrel, tmp_path / "x.pth", form, variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_full_depth(spandrel, tmp_path, variant):
    network = stirred(build(variant, 2), 0.02)
    save_checkpoint(tmp_path / "x.safetensors", network, variant)
    opens_as(spandrel, tmp_path / "x.safetensors", network, variant)


@pytest.mark.parametrize("wrapper", ["params_ema", "params", "state_dict", "net", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_of_other_trainers(spandrel, tmp_path, wrapper, prefix):
    network = stirred(build("realtime", 4, upsampler_alpha=0.6))
    state = {prefix + key: value for key, value in network.state_dict().items()}
    torch.save({wrapper: state, "iter": 3} if wrapper else state, tmp_path / "x.pth")
    opens_as(spandrel, tmp_path / "x.pth", network, "realtime")


def test_a_state_without_alpha_is_of_the_plain_kernel(spandrel):
    state = stirred(build("realtime", 2)).state_dict()
    del state[ALPHA_KEY]
    assert spandrel.ModelLoader().load_from_state_dict(state).model.upsampler_alpha == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_runs(spandrel, shallow, dtype):
    for variant in ("realtime", "photo"):
        network = stirred(build(variant, 2, upsampler_alpha=0.3))
        half = spandrel.ModelLoader().load_from_state_dict(network.state_dict()).to(dtype)
        x = torch.rand(1, 3, 9, 14)
        with torch.no_grad():
            whole = network(x).clamp(0, 1)
        torch.testing.assert_close(half(x.to(dtype)).float(), whole, atol=0.05, rtol=0)


def test_a_damaged_state_says_what_is_wrong(spandrel):
    state = build("realtime", 2).state_dict()
    for change, message in (
        ({"stranger": torch.zeros(1)}, "no place for"),
        ({"fuse.bias": torch.full((16,), float("nan"))}, "NaN"),
        ({"fuse.bias": torch.zeros(3)}, r"needs \(16,\)"),
    ):
        with pytest.raises(WeightsError, match=message):
            spandrel.ModelLoader().load_from_state_dict({**state, **change})
    del state["fuse.bias"]
    with pytest.raises(WeightsError, match="lacks 1 tensors"):
        spandrel.ModelLoader().load_from_state_dict(state)


def test_installing_again_is_harmless(spandrel):
    from paragonsr2.spandrel import install

    before = len(spandrel.MAIN_REGISTRY)
    install()
    assert len(spandrel.MAIN_REGISTRY) == before
    assert "ParagonSR2" in spandrel.MAIN_REGISTRY


def test_no_other_architecture_claims_our_files(spandrel, shallow):
    for variant in VARIANTS:
        trained = build(variant, 4)
        for network in (trained, trained.collapse()):
            claims = [
                a.architecture.id for a in spandrel.MAIN_REGISTRY if a.detect(network.state_dict())
            ]
            assert claims == ["ParagonSR2"]


def test_files_of_other_architectures_stay_theirs(spandrel, tmp_path):
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.SPAN import SPAN

    for network, name in (
        (
            Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2, act_type="prelu"),
            "Compact",
        ),
        (SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2), "SPAN"),
    ):
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        save_file(state, tmp_path / "x.safetensors")
        model = spandrel.ModelLoader().load_from_file(tmp_path / "x.safetensors")
        assert model.architecture.id == name
        assert not spandrel.MAIN_REGISTRY["ParagonSR2"].detect(state)


OURS = ("conv_in.weight", "fuse.weight", "upsampler.last.weight")


@pytest.mark.parametrize(
    "junk",
    [
        {},
        {"weight": torch.zeros(3)},
        {key: torch.zeros(()) for key in OURS},
        {key: torch.zeros(5, 5) for key in OURS},
        {key: torch.zeros(16, 3, 3, 3) for key in OURS},
        dict.fromkeys(OURS, 3),
    ],
)
def test_junk_is_refused(spandrel, junk):
    with pytest.raises((spandrel.UnsupportedModelError, WeightsError)):
        spandrel.ModelLoader().load_from_state_dict(junk)
