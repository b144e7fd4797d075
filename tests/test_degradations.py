"""Degradations: seeded, aligned with the original, right in size; missing encoders are said."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import photo_like
from paragonsr2.errors import TrainingError
from paragonsr2.measure.quality import luma, psnr, shrink
from paragonsr2.pixels.resize import bicubic
from paragonsr2.training import video_degradation
from paragonsr2.training.config import CodecConfig
from paragonsr2.training.data import CropSampler, Pair
from paragonsr2.training.video_degradation import (
    STILLS,
    VIDEO,
    ClipCache,
    ClipPlan,
    Encoding,
    degrade_whole,
    make_clip,
)

BEST = {"h264": 1, "hevc": 1, "vp9": 4, "av1": 4, "jpeg": 100, "webp": 100, "avif": 100}


def pair(seed=0, height=200, width=240, scale=2):
    hr = photo_like(height, width, seed=seed)
    return Pair(str(seed), hr, shrink(hr, scale), digest=f"{seed:08x}")


def encoding(codec, quality):
    return Encoding(codec, quality, speed=VIDEO[codec].speeds[0] if codec in VIDEO else "")


@pytest.fixture
def settings():
    return CodecConfig(side=(64, 80), frames=(3, 4))


@pytest.mark.parametrize("codec", [*VIDEO, *STILLS])
def test_the_kept_frame_is_aligned_with_the_original(codec):
    picture = pair()
    plan = ClipPlan(0, 11, 20, 72, 80, 5, 3, (0.7, -1.2), 0.01, encoding(codec, BEST[codec]))
    lr = make_clip(plan, picture)
    still, hr = picture.crop(11, 20, 72, 80)
    assert lr.shape == still.shape
    assert lr.dtype == np.uint8
    assert psnr(luma(lr), luma(still)) > 38
    # One pixel of HR off would cost decibels; the encoder at its best costs tenths.
    large, inner = bicubic(lr, 2.0).astype(np.uint8), np.s_[4:-4, 4:-4]
    there = psnr(luma(large[inner]), luma(hr[inner]))
    assert there > psnr(luma(bicubic(still, 2.0)[inner]), luma(hr[inner])) - 1.0
    for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        moved = np.roll(large, shift, axis=(0, 1))
        assert psnr(luma(moved[inner]), luma(hr[inner])) < there - 1.5


@pytest.mark.parametrize("codec", [*VIDEO, *STILLS])
def test_a_lower_quality_is_worse(codec):
    picture, low = pair(), 45 if codec in VIDEO else 10
    still, _ = picture.crop(0, 0, 96, 96)
    scores = [
        psnr(luma(make_clip(ClipPlan(0, 0, 0, 96, 96, 3, 1, (0, 0), 0, how), picture)), luma(still))
        for how in (encoding(codec, BEST[codec]), encoding(codec, low))
    ]
    assert scores[0] > scores[1] + 3


def test_clips_are_seeded_cached_and_paired(tmp_path, settings):
    pictures = [pair(0), pair(1, height=260)]

    def sampler(folder, count=6, seed=4):
        cache = ClipCache(tmp_path / folder, pictures, settings, 2, seed)
        lines = []
        cache.build(range(count), 2, lines.append)
        return CropSampler(pictures, 2, 24, seed, cache.sampler(count), clean=0.3), lines

    first, lines = sampler("a")
    assert "encoded 6/6 clips" in lines
    assert sampler("a")[1] == []
    assert "encoded 2/2 clips" in sampler("a", count=8)[1]
    whole = first.batch(9, range(8))
    for again in (sampler("a"), sampler("b")):
        for one, other in zip(whole, again[0].batch(9, range(8)), strict=True):
            np.testing.assert_array_equal(one, other)
    parts = [first.batch(9, range(3)), first.batch(9, range(3, 8))]
    for one, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate(pieces))
    assert not np.array_equal(whole[0], sampler("a", seed=5)[0].batch(9, range(8))[0])
    lr, hr = whole
    assert (lr.shape, hr.shape) == ((8, 24, 24, 3), (8, 48, 48, 3))
    for small, large in zip(lr, hr, strict=True):
        middle = np.s_[4:-4, 4:-4]
        assert psnr(luma(small[middle]), luma(shrink(large, 2)[middle])) > 18


def test_a_damaged_clip_is_made_again(tmp_path, settings):
    cache = ClipCache(tmp_path, [pair()], settings, 2, 0)
    cache.build(range(2), 1, lambda _: None)
    path = next(tmp_path.rglob("000001.npy"))
    path.write_bytes(path.read_bytes()[:200])
    lines = []
    cache.build(range(2), 1, lines.append)
    assert "encoded 1/1 clips" in lines


def test_a_missing_encoder_is_said(tmp_path, monkeypatch):
    absent = video_degradation.VideoCodec("libabsent", "h264", "preset", ("medium",))
    monkeypatch.setitem(VIDEO, "hevc", absent)
    with pytest.raises(TrainingError, match=r"hevc \(libabsent\).*degradation\.codec\.mix"):
        ClipCache(tmp_path, [pair()], CodecConfig(mix={"h264": 1, "hevc": 1}), 2, 0)


def test_pictures_too_small_for_clips_are_said(tmp_path):
    with pytest.raises(TrainingError, match="too small for clips"):
        ClipCache(tmp_path, [pair(height=80)], CodecConfig(), 2, 0)


def test_validation_pictures_become_frames_of_clips():
    settings, whole = CodecConfig(), pair(height=250, width=301)
    degraded = degrade_whole(whole, settings)
    assert degraded.hr.shape == (2 * degraded.lr.shape[0], 2 * degraded.lr.shape[1], 3)
    np.testing.assert_array_equal(degraded.lr, degrade_whole(whole, settings).lr)
