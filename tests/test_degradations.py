"""Degradations: seeded, aligned with the original, right in size; missing encoders are said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import photo_like
from paragonsr2.arrays.resize import bicubic
from paragonsr2.errors import TrainingError
from paragonsr2.measure.quality import luma, psnr, shrink
from paragonsr2.training import video_degradation
from paragonsr2.training.blind_cache import BlindCache
from paragonsr2.training.clip_cache import ClipCache
from paragonsr2.training.config_file import load_config
from paragonsr2.training.data import CropSampler, Pair, Place
from paragonsr2.training.dataset import prepare
from paragonsr2.training.degradation_config import BlindConfig, CodecConfig
from paragonsr2.training.degradations import (
    BlindDegradation,
    blur_kernel,
    random_kernel,
    sinc_kernel,
)
from paragonsr2.training.processes import Processes
from paragonsr2.training.video_degradation import (
    STILLS,
    VIDEO,
    ClipPlan,
    Encoding,
    compress_video,
    degrade_whole,
    make_clip,
    plan_clip,
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


@pytest.mark.parametrize("codec", ["h264", "jpeg"])
def test_a_clip_that_was_smaller_once_is_soft_and_in_its_place(codec):
    picture, best = pair(), encoding(codec, BEST[codec])
    still, _ = picture.crop(2, 10, 96, 100)
    soft = make_clip(ClipPlan(0, 2, 10, 96, 100, 3, 1, (0, 0), 0, best, smaller=2.0), picture)
    assert soft.shape == still.shape
    inner = luma(still[4:-4, 4:-4])
    assert np.abs(np.diff(luma(soft))).mean() < 0.9 * np.abs(np.diff(luma(still))).mean()
    there = psnr(luma(soft[4:-4, 4:-4]), inner)
    for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        moved = luma(np.roll(soft, shift, axis=(0, 1))[4:-4, 4:-4])
        assert psnr(moved, inner) < there - 1.0


def test_as_many_clips_are_soft_as_asked_and_the_others_stay_as_they_were(settings):
    def plans(**soft):
        asked = settings.model_copy(update=soft)
        return [plan_clip(index, [pair()], np.ones(1), asked, 4) for index in range(200)]

    never, some = plans(), plans(soft=0.3, soft_by=(1.5, 2.0))
    factors = [plan.smaller for plan in some if plan.smaller != 1]
    assert 40 < len(factors) < 80
    assert 1.5 <= min(factors) < max(factors) <= 2.0
    assert [replace(plan, smaller=1.0) for plan in some] == never


def test_clips_are_seeded_cached_and_paired(tmp_path, settings):
    pictures = [pair(0), pair(1, height=260)]

    def sampler(folder, count=6, seed=4):
        cache = ClipCache(tmp_path / folder, pictures, settings, 2, 24, seed)
        lines = []
        cache.build(range(count), 2, lines.append)
        return CropSampler(pictures, 2, 24, seed, cache.sampler(count), clean=0.3), lines

    first, lines = sampler("a")
    assert "encoding: 6/6 clips" in lines
    assert sampler("a")[1] == []
    assert "encoding: 2/2 clips" in sampler("a", count=8)[1]
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


def test_a_clip_is_the_same_after_any_other(settings):
    """x264 in AVX-512 depends on what other encoders left in memory."""
    pictures = [pair(0), pair(1, height=260)]
    plans = [plan_clip(index, pictures, np.full(2, 0.5), settings, 4) for index in range(24)]
    plans = [plan for plan in plans if plan.encoding.codec == "h264"]
    first = [make_clip(plan, pictures[plan.picture]) for plan in plans]
    for turn in range(8):
        for plan, clip in list(zip(plans, first, strict=True))[:: 1 + turn % 3]:
            np.testing.assert_array_equal(make_clip(plan, pictures[plan.picture]), clip)


def test_a_damaged_clip_is_made_again(tmp_path, settings):
    cache = ClipCache(tmp_path, [pair()], settings, 2, 24, 0)
    cache.build(range(2), 1, lambda _: None)
    path = next(tmp_path.rglob("000001.npy"))
    path.write_bytes(path.read_bytes()[:200])
    lines = []
    cache.build(range(2), 1, lines.append)
    assert "encoding: 1/1 clips" in lines


def test_a_missing_encoder_is_said(tmp_path, monkeypatch):
    absent = video_degradation.VideoCodec("libabsent", "h264", "preset", ("medium",))
    monkeypatch.setitem(VIDEO, "hevc", absent)
    with pytest.raises(TrainingError, match=r"hevc \(libabsent\).*degradation\.codec\.mix"):
        ClipCache(tmp_path, [pair()], CodecConfig(mix={"h264": 1, "hevc": 1}), 2, 24, 0)


def test_pictures_too_small_for_clips_are_said(tmp_path):
    with pytest.raises(TrainingError, match="too small for clips"):
        ClipCache(tmp_path, [pair(height=80)], CodecConfig(), 2, 24, 0)
    with pytest.raises(TrainingError, match="cannot hold crops of 66"):
        ClipCache(tmp_path, [pair()], CodecConfig(side=(65, 80)), 2, 65, 0)


def test_validation_pictures_become_frames_of_clips():
    settings, whole = CodecConfig(), pair(height=250, width=301)
    degraded = degrade_whole(whole, settings)
    assert degraded.hr.shape == (2 * degraded.lr.shape[0], 2 * degraded.lr.shape[1], 3)
    np.testing.assert_array_equal(degraded.lr, degrade_whole(whole, settings).lr)


MILD = {
    "blur": 0.0,
    "enlarge": 0.0,
    "shrink": 0.0,
    "noise": (0, 0),
    "gaussian": 1,
    "jpeg": (98, 98),
}


def test_the_blind_chain_is_aligned_with_the_original():
    mild = BlindConfig.model_validate({"first": MILD, "second": MILD, "final_sinc": 0})
    picture = pair()
    for seed in range(4):
        rngs = [np.random.default_rng((seed, part)) for part in range(2)]
        [(lr, hr)] = BlindDegradation(mild, 2)([Place(picture, 11, 20, 48)], rngs[:1], rngs[1])
        large, inner = bicubic(lr, 2.0).astype(np.uint8), np.s_[4:-4, 4:-4]
        there = psnr(luma(large[inner]), luma(hr[inner]))
        assert there > 26
        for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            moved = np.roll(large, shift, axis=(0, 1))
            assert psnr(luma(moved[inner]), luma(hr[inner])) < there - 1.0


def test_a_share_of_the_blind_chain_is_only_stored_as_jpeg():
    mild = {"second": {"jpeg": (100, 100)}, "plain": 1.0}
    degradation = BlindDegradation(BlindConfig.model_validate(mild), 2)
    hr = pair().hr[None]
    rngs = [np.random.default_rng(part) for part in range(2)]
    lr = degradation.shrink(hr, rngs[:1], rngs[1])
    assert psnr(luma(lr[0]), luma(shrink(hr[0], 2))) > 40


def test_the_margin_holds_all_that_the_kernels_reach():
    """Nothing beyond the margin of a crop changes it."""
    wide = {**MILD, "blur": 1.0, "sigma": (15, 20), "resize": (1, 1), "jpeg": (100, 100)}
    settings = BlindConfig.model_validate({"first": wide, "second": wide, "final_sinc": 1})
    degradation, (side, middle) = BlindDegradation(settings, 2), (16, 56)
    hr = pair(height=256, width=256).hr
    context = slice(2 * (middle - degradation.margin), 2 * (middle + side + degradation.margin))
    other = 255 - hr
    other[context, context] = hr[context, context]
    for seed in range(3):
        one, same = (
            degradation.shrink(
                pixels[None], [np.random.default_rng(seed)], np.random.default_rng(seed + 9)
            )[0, middle : middle + side, middle : middle + side].astype(int)
            for pixels in (hr, other)
        )
        # One level is what JPEG at quality 100 rounds.
        assert np.abs(one - same).max() <= 1


def test_blind_rows_are_seeded_and_do_not_depend_on_the_batch():
    pictures = [pair(0), pair(1, height=260)]
    degradation = BlindDegradation(BlindConfig.model_validate({}), 2)
    sampler = CropSampler(pictures, 2, 24, 3, degradation, clean=0.2)
    lr, hr = sampler.batch(2, range(12))
    assert (lr.shape, hr.shape, lr.dtype) == ((12, 24, 24, 3), (12, 48, 48, 3), np.uint8)
    parts = [sampler.batch(2, range(3)), sampler.batch(2, range(3, 12))]
    for whole, pieces in zip((lr, hr), zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(pieces))
    plain, same = CropSampler(pictures, 2, 24, 3).batch(2, range(12))
    np.testing.assert_array_equal(hr, same)
    changed = (lr != plain).any(axis=(1, 2, 3))
    assert 6 <= changed.sum() <= 12


def test_regions_are_seeded_cached_and_paired(tmp_path):
    pictures = [pair(0), pair(1, height=260)]
    blind = BlindDegradation(BlindConfig.model_validate({"final_sinc": 0.0}), 2)

    def sampler(folder, seed=4):
        cache = BlindCache(tmp_path / folder, pictures, blind, 24, seed)
        lines = []
        cache.build(range(5), 2, lines.append)
        return CropSampler(pictures, 2, 24, seed, cache.sampler(5), clean=0.3), lines

    first, lines = sampler("a")
    assert "degrading: 5/5 regions" in lines
    again, nothing = sampler("a")
    assert nothing == []
    whole = first.batch(9, range(8))
    for other in (again, sampler("b")[0]):
        for one, same in zip(whole, other.batch(9, range(8)), strict=True):
            np.testing.assert_array_equal(one, same)
    assert not np.array_equal(whole[0], sampler("a", seed=5)[0].batch(9, range(8))[0])
    for small, large in zip(*whole, strict=True):
        assert psnr(luma(small), luma(shrink(large, 2))) > 14
    with pytest.raises(TrainingError, match="cached_regions = 0"):
        BlindCache(tmp_path, [pair(0)], blind, 400, 4)


def test_every_picture_of_a_group_has_its_own_kernel_noise_and_quality():
    degradation = BlindDegradation(BlindConfig.model_validate({}), 2)
    same = np.stack([pair().hr[:80, :80]] * 3)
    rngs = [np.random.default_rng(seed) for seed in (1, 2, 1)]
    one, other, again = degradation.shrink(same, rngs, np.random.default_rng(5)).astype(int)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).mean() > 1


def test_a_whole_picture_is_degraded_the_same_each_time():
    degradation = BlindDegradation(BlindConfig.model_validate({}), 2)
    one, other = degradation.whole(pair(4)), degradation.whole(pair(4))
    assert one.lr.shape == pair(4).lr.shape
    np.testing.assert_array_equal(one.lr, other.lr)
    assert not np.array_equal(one.lr, pair(4).lr)


def test_kernels_keep_brightness_and_blur_as_told():
    rng = np.random.default_rng(0)
    for _ in range(30):
        kernel = random_kernel((0.2, 3.0), 0.3, rng)
        assert kernel.shape[0] == kernel.shape[1]
        assert float(kernel.sum()) == pytest.approx(1.0, abs=1e-5)
        assert torch.isfinite(kernel).all()
    kernel = blur_kernel(21, (1.0, 2.0), 0.0, "gaussian", 1.0).double()
    reach = torch.arange(21.0) - 10
    assert float((kernel.sum(0) * reach**2).sum()) == pytest.approx(1.0, rel=0.02)
    assert float((kernel.sum(1) * reach**2).sum()) == pytest.approx(4.0, rel=0.02)
    # A sinc passes what is below its cutoff and stops what is above.
    response = torch.fft.fft2(sinc_kernel(21, 1.5), s=(64, 64)).abs()
    assert float(response[0, 4]) > 0.9
    assert float(response[0, 28]) < 0.15


@pytest.mark.parametrize(("kind", "regions"), [("blind", 0), ("blind", 2), ("codec", 0)])
def test_each_kind_runs_from_a_configuration(tmp_path, kind, regions):
    for name, seed in (("train", 0), ("val", 1)):
        (tmp_path / name).mkdir()
        Image.fromarray(pair(seed).hr).save(tmp_path / name / "p.png")
    (tmp_path / "c.toml").write_text(
        f'[network]\nvariant = "stream"\nscale = 2\n'
        f'[data]\ntrain = ["{tmp_path}/train"]\nval = "{tmp_path}/val"\npatch = 24\n'
        f"batch = 4\nval_drawn = 1\n"
        f'[degradation]\nkind = "{kind}"\ncached_clips = 3\ncached_regions = {regions}\n'
        f'[schedule]\nsteps = 2\n[run]\noutput = "{tmp_path}/run"\nthreads = 1\n'
    )
    config = load_config(tmp_path / "c.toml")

    def prepared(processes=None):
        return prepare(
            config.data, config.degradation, config.run, 2,
            log=lambda _: None, processes=processes,
        )  # fmt: skip

    sampler, val = prepared()
    for one in (val.pictures[0], val.drawn[0]):
        assert one.hr.shape[0] == 2 * one.lr.shape[0]
        assert not np.array_equal(one.lr, shrink(one.hr, 2))
    whole = sampler.batch(0, range(4))
    ranks = []
    for rank in range(2):
        # The barrier cannot be waited for by one process; the other has built its clips.
        part, _ = prepared(Processes(rank, 2))
        ranks.append(part.batch(0, range(2 * rank, 2 * rank + 2)))
    for one, pieces in zip(whole, zip(*ranks, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate(pieces))


@pytest.mark.parametrize("codec", VIDEO)
def test_frames_come_back_in_their_order(codec):
    wide = photo_like(80, 220, seed=5)
    frames = [np.ascontiguousarray(wide[:, 6 * i : 6 * i + 96]) for i in range(12)]
    decoded = compress_video(frames, Encoding(codec, 12, speed=VIDEO[codec].speeds[-1]))
    for index, pixels in enumerate(decoded):
        errors = [float(np.abs(luma(pixels) - luma(frame)).mean()) for frame in frames]
        assert int(np.argmin(errors)) == index
        assert np.mean(luma(pixels) - luma(frames[index])) == pytest.approx(0.0, abs=0.5)
