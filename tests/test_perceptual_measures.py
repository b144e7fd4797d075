"""Measures of what PSNR does not see."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.perceptual import gradient_distance, log_spectral_distance
from conftest import ROOT
from paragonsr2.arrays.resize import bicubic
from paragonsr2.images.reading import read_picture

MEASURES = (log_spectral_distance, gradient_distance)


@pytest.fixture(scope="module")
def hr():
    return read_picture(ROOT / "examples" / "houses.png").pixels[128:384, 256:640]


def blurred(hr, factor):
    back = bicubic(bicubic(hr, 1 / factor), factor)
    return np.clip(back, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_picture_is_at_no_distance_from_itself_and_moving_detail_is_cheap(measure, hr):
    assert measure(hr, hr) == 0.0
    assert measure(np.roll(hr, 1, axis=1), hr) < 0.25 * measure(blurred(hr, 2), hr)


@pytest.mark.parametrize("measure", MEASURES)
def test_more_blur_is_farther_away(measure, hr):
    distances = [measure(blurred(hr, factor), hr) for factor in (2, 4)]
    assert 0.0 < distances[0] < distances[1]


@pytest.mark.parametrize("measure", MEASURES)
def test_too_much_detail_is_a_distance_too(measure, hr):
    noise = np.random.default_rng(0).integers(-20, 21, hr.shape)
    assert measure(np.clip(hr + noise, 0, 255).astype(np.uint8), hr) > 0.0
