"""The ruler."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conftest import photo_like
from paragonsr2.arrays.resize import bicubic
from paragonsr2.errors import ImageError
from paragonsr2.images.reading import read_picture
from paragonsr2.measure.quality import evaluate_image, luma, mean_score, psnr, score, shrink, ssim


def test_equal_pictures_are_perfect():
    picture = photo_like(40, 50)
    found = score(picture, picture, shave=2)
    assert found.psnr_y == math.inf
    assert found.ssim_y == pytest.approx(1.0)


def test_luma_spans_16_to_235():
    assert luma(np.zeros((1, 1, 3), np.uint8)) == pytest.approx(16)
    assert luma(np.full((1, 1, 3), 255, np.uint8)) == pytest.approx(235)


def test_psnr_of_a_known_error():
    assert psnr(np.zeros((4, 4)), np.full((4, 4), 5.0)) == pytest.approx(20 * math.log10(255 / 5))


def test_ssim_of_unrelated_noise_is_near_zero():
    rng = np.random.default_rng(0)
    assert abs(ssim(rng.random((64, 64)) * 255, rng.random((64, 64)) * 255)) < 0.05


def test_the_border_does_not_count():
    hr = photo_like(40, 40)
    sr = hr.copy()
    sr[:2] = 0
    sr[:, -2:] = 255
    assert score(sr, hr, shave=2).psnr_y == math.inf


def test_sizes_must_agree_and_suffice():
    with pytest.raises(ImageError, match="differ"):
        score(photo_like(20, 20), photo_like(20, 22), shave=2)
    with pytest.raises(ImageError, match="too small"):
        score(photo_like(12, 12), photo_like(12, 12), shave=2)


@pytest.mark.parametrize(
    ("scale", "name", "expected"),
    [
        (2, "Set5", 33.67),
        (2, "Set14", 30.33),
        (2, "Urban100-20", 27.59),
        (3, "Set5", 30.41),
        (3, "Set14", 27.63),
        (4, "Set5", 28.43),
        (4, "Set14", 26.09),
    ],
)
def test_bicubic_reads_what_the_field_reads(data, scale, name, expected):
    files = sorted((data / "benchmark" / name / "HR").iterdir())
    scores = [
        evaluate_image(lambda lr: bicubic(lr, scale), read_picture(file).pixels, scale)
        for file in files
    ]
    assert mean_score(scores).psnr_y == pytest.approx(expected, abs=0.02)


def test_shrinking_is_exact_where_it_must_be():
    assert shrink(photo_like(24, 36), 3).shape == (8, 12, 3)
