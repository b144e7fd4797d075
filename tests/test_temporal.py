"""Steadied video: less flicker, no ghosts, nothing over a cut, and the same bytes after a kill."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from clips import make_clip, picture, regular
from conftest import photo_like
from paragonsr2.arrays.pixels import to_8_bits, to_16_bits
from paragonsr2.errors import MissingExtraError
from paragonsr2.upscale.temporal import Steadier
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import VideoOptions, upscale_video
from test_cli import fails_cleanly, run
from test_video import Stop, look, stop_at

ON = VideoOptions(codec="ffv1", segment=6, temporal="on")
OFF = VideoOptions(codec="ffv1", segment=6, temporal="off")


@pytest.fixture(scope="module")
def magic():
    return Upscaler("magic", 2, tile="off")


def texture(height=96, width=128, seed=0):
    """Something to follow, of the size of a small frame."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 30, 220, cv2.NORM_MINMAX)


def steady(small, large, **options):
    """The second frame of two, steadied, in 8-bit steps."""
    result = Steadier(2, **options)(small, large)
    assert result.dtype == np.uint16
    return result / 257


def distance(a, b):
    return np.abs(a - b)[8:-8, 8:-8].mean()


@pytest.mark.parametrize("step", [0, 3])
def test_noise_of_the_enlarged_frames_falls_also_in_motion(magic, step):
    world = texture(width=140)
    small = [np.ascontiguousarray(world[:, x : x + 128]) for x in (step, 0)]
    true = [magic(to_16_bits(frame)) for frame in small]
    rng = np.random.default_rng(1)
    noisy = [np.clip(t + rng.normal(0, 800, t.shape), 0, 65535).astype(np.uint16) for t in true]
    before = distance(noisy[1] / 257, true[1] / 257)
    # A quarter of one and three quarters of the other have 0.79 of the noise.
    assert distance(steady(small, noisy), true[1] / 257) < 0.85 * before


def test_what_moves_over_a_background_leaves_no_ghost(magic):
    small = []
    for x in (40, 52):
        frame = texture(seed=2)
        frame[30:60, x : x + 24] = 255 - texture(30, 24, seed=3) // 4
        small.append(frame)
    large = [magic(to_16_bits(frame)) for frame in small]
    # A quarter of what was uncovered or covered would be more than 30 steps.
    assert np.abs(steady(small, large) - large[1] / 257).max() < 4


@pytest.mark.parametrize("kind", ["cut", "flash", "colour"])
def test_nothing_is_taken_over_from_another_scene_or_light(magic, kind):
    now = texture()
    before = {
        "cut": texture(seed=9)[:, ::-1] // 2,
        "flash": now // 2 + 110,
        "colour": now[..., ::-1],
    }[kind]
    small = [np.ascontiguousarray(before), now]
    large = [magic(to_16_bits(frame)) for frame in small]
    assert np.abs(steady(small, large) - large[1] / 257).mean() < 0.05


def test_a_cut_is_told_from_motion_and_the_frame_after_it_is_itself():
    steadier = Steadier(2)
    one, other = texture(), photo_like(96, 128)
    assert steadier.is_cut(one, other)
    assert not steadier.is_cut(one, np.roll(one, 2, axis=1))
    large = [np.full((192, 256, 3), value, np.uint16) for value in (0, 60000)]
    assert steadier((one, other), large) is large[1]


@pytest.mark.parametrize(("size", "channels"), [((1, 1), 3), ((8, 40), 3), ((12, 12), 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_frame_is_taken(magic, size, channels, dtype):
    top = np.iinfo(dtype).max
    rng = np.random.default_rng(0)
    small = [rng.integers(0, top, (*size, channels), endpoint=True).astype(dtype)] * 2
    large = [magic(to_16_bits(frame)) for frame in small]
    assert (Steadier(2)(small, large) == large[1]).all()


def test_depth_goes_up_and_down_without_loss():
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert (to_8_bits(to_16_bits(eight)) == eight).all()
    sixteen = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    assert (to_8_bits(sixteen) == np.floor(sixteen / 257 + 0.5)).all()
    assert to_16_bits(sixteen) is not sixteen
    assert (to_16_bits(sixteen) == sixteen).all()


def shots(index, width=64, height=36):
    """Three frames of each picture, and another shot from frame 10 on."""
    held = picture(index // 3, width, height)
    return held if index < 10 else 65535 - held


def test_an_interrupted_job_ends_in_the_same_bytes(tmp_path, magic):
    """Segments of 6 and of 8 frames begin in new pictures, in held ones and near a cut."""
    source = tmp_path / "in.mkv"
    make_clip(source, regular(30), codec="ffv1", pictures=shots)
    for segment in (6, 8):
        options = VideoOptions(preset="ultrafast", codec="h264", segment=segment, temporal="on")
        whole, target = tmp_path / "whole.mkv", tmp_path / "out.mkv"
        upscale_video(source, whole, magic, options)
        for frame in (7, 15, 19, 27):
            with pytest.raises(Stop):
                upscale_video(source, target, magic, options, progress=stop_at(frame))
        assert upscale_video(source, target, magic, options).resumed == 24
        assert target.read_bytes() == whole.read_bytes()


def test_a_resumed_job_computes_one_frame_more(tmp_path):
    calls = []

    class Counting(Upscaler):
        def __call__(self, *arguments, **options):
            calls.append(1)
            return super().__call__(*arguments, **options)

    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    make_clip(source, regular(20), codec="ffv1")
    counting = Counting("magic", 2, tile="off")
    with pytest.raises(Stop):
        upscale_video(source, target, counting, ON, progress=stop_at(14))
    calls.clear()
    assert upscale_video(source, target, counting, ON).resumed == 12
    assert len(calls) == 20 - 12 + 1


def frames_of(path):
    return [frame.to_ndarray(format="rgb24").astype(int) for frame in look(path)["frames"]]


def test_held_frames_stay_held_and_a_shot_begins_clean(tmp_path, magic):
    source, on, off = (tmp_path / f"{name}.mkv" for name in ("in", "on", "off"))
    make_clip(source, regular(16), codec="ffv1", pictures=shots)
    assert upscale_video(source, on, magic, ON).repeated == 9
    upscale_video(source, off, magic, OFF)
    steadied, plain = frames_of(on), frames_of(off)
    # Frames 1, 2, 4, 5, ... equal the one before, but for the first of a segment.
    for index in (1, 2, 4, 5, 7, 8, 11, 13, 14):
        assert (steadied[index] == steadied[index - 1]).all()
    assert np.abs(steadied[3] - plain[3]).max() > 1
    for first_of_shot in (0, 10):
        assert np.abs(steadied[first_of_shot] - plain[first_of_shot]).max() <= 1


def test_deep_video_is_steadied_in_its_depth(tmp_path, magic):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    make_clip(source, regular(4), codec="ffv1", pix_fmt="yuv420p10le")
    upscale_video(source, target, magic, ON)
    assert look(target)["format"] == "yuv420p10le"


def test_without_opencv_it_is_off_and_said_once_or_refused(tmp_path, magic, monkeypatch):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    make_clip(source, regular(4), codec="ffv1")
    upscale_video(source, tmp_path / "plain.mkv", magic, OFF)
    monkeypatch.setitem(sys.modules, "cv2", None)
    result = upscale_video(source, target, magic, VideoOptions(codec="ffv1", segment=6))
    (note,) = result.notes
    assert "paragonsr2[temporal]" in note
    assert target.read_bytes() == (tmp_path / "plain.mkv").read_bytes()
    with pytest.raises(MissingExtraError, match="temporal"):
        upscale_video(source, target, magic, ON)


def test_the_command_says_what_is_missing_before_any_work(tmp_path):
    source = tmp_path / "in.mkv"
    make_clip(source, regular(3))
    code = "import sys; sys.modules['cv2'] = None; from paragonsr2.cli.main import main; main()"
    command = [sys.executable, "-c", code, "upscale", str(source), "-m", "magic", "--temporal"]
    result = subprocess.run([*command, "on"], capture_output=True, text=True, check=False)
    fails_cleanly(result, 3)
    assert run("upscale", source, "-m", "magic", "--temporal", "never").returncode == 2
