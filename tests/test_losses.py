"""Each loss is a distance that falls, has a true gradient, and counts when it is told to."""

from __future__ import annotations

import pytest
import torch

from paragonsr2.errors import TrainingError
from paragonsr2.training.config import LossConfig, LossTerm, PixelTerm
from paragonsr2.training.loss_terms import PixelLoss, artefact_map, feature_matching
from paragonsr2.training.losses import GeneratorLosses, weight_at


@pytest.mark.parametrize("kind", ["l1", "charbonnier", "mse"])
@pytest.mark.parametrize("luma", [0.0, 0.8])
def test_pixel_loss_falls_with_the_error_and_weighs_grey_the_same(kind, luma):
    loss = PixelLoss(PixelTerm(kind=kind, luma=luma))
    hr = torch.rand(1, 3, 8, 8)
    values = [float(loss(hr + shift, hr)) for shift in (0.0, 0.1, 0.3)]
    assert values[0] < values[1] < values[2]
    grey = float(loss(hr + 0.1, hr))
    assert grey == pytest.approx(float(PixelLoss(PixelTerm(kind=kind))(hr + 0.1, hr)), rel=1e-4)


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
