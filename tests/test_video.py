"""Video: everything in a clip comes out as it went in, but larger; a killed job goes on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from clips import TICKS, irregular, look, make_clip, picture, regular
from conftest import photo_like
from paragonsr2.clips.clip import probe
from paragonsr2.clips.codecs import CODECS
from paragonsr2.clips.container import is_video
from paragonsr2.clips.encode import SegmentEncoder
from paragonsr2.clips.frames import Converter, read_frames
from paragonsr2.clips.instructions import x264_instructions
from paragonsr2.clips.opening import real_time_threads
from paragonsr2.clips.plan import plan_clip
from paragonsr2.clips.segments import locked, work_folder
from paragonsr2.errors import ImageError, ImageTooLargeError, OptionError, OutputError, UsageError
from paragonsr2.images.header import Picture
from paragonsr2.images.writing import write_picture
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import VideoOptions, plan_video, upscale_video
from test_cli import fails_cleanly, run

QUICK = VideoOptions(preset="ultrafast", segment=8)


@pytest.fixture(scope="module")
def magic():
    return Upscaler("magic", 2, tile="off")


def enlarge(source, upscaler, options=QUICK, target=None):
    target = target or source.with_name(f"out{source.suffix}")
    result = upscale_video(source, target, upscaler, options)
    assert not work_folder(target).exists()
    assert not list(target.parent.glob(".*part*"))
    return result, look(target)


def same_times(before, after):
    assert len(before["times"]) == len(after["times"])
    assert max(abs(a - b) for a, b in zip(before["times"], after["times"], strict=True)) < 1e-3


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_everything_beside_the_picture_is_kept(tmp_path, magic, suffix):
    source = tmp_path / f"in{suffix}"
    matroska = suffix == ".mkv"
    make_clip(
        source, irregular(45), sounds=2, chapters=True, subtitles=matroska,
        attachment=b"a font" * 50 if matroska else None, metadata={"title": "Höhe", "comment": "x"},
    )  # fmt: skip
    before = look(source)
    result, after = enlarge(source, magic)
    assert result.notes == ()
    assert result.frames == 45
    same_times(before, after)
    for what in ("streams", "chapters", "files", "metadata", "packets", "codec", "format"):
        assert after[what] == before[what], what
    assert after["size"] == (128, 72)
    assert len(before["chapters"]) == 2


def test_sound_and_picture_do_not_drift(tmp_path, magic):
    source = tmp_path / "in.mp4"
    make_clip(source, irregular(60, seed=3), sounds=1)
    before = look(source)
    _, after = enlarge(source, magic)
    for a, b in zip(before["times"], after["times"], strict=True):
        assert abs(a - b) < 1e-3
    for (a, _), (b, _) in zip(before["packets"][1], after["packets"][1], strict=True):
        assert abs(a - b) < 1e-3


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("libx264", "yuv420p", ".mp4"),
        ("libx264", "yuv444p", ".mkv"),
        ("libx264", "yuv420p10le", ".mp4"),
        ("libx264", "yuv444p10le", ".mkv"),
        ("libx265", "yuv420p10le", ".mp4"),
        ("libx265", "yuv444p10le", ".mkv"),
        ("libx265", "yuv422p10le", ".mkv"),
        ("ffv1", "yuv420p10le", ".mkv"),
        ("ffv1", "yuva420p", ".mkv"),
        ("prores_ks", "yuv422p10le", ".mov"),
        ("prores_ks", "yuva444p10le", ".mov"),
        ("libsvtav1", "yuv420p10le", ".mp4"),
    ],
)
def test_depth_chroma_and_codec_are_kept(tmp_path, magic, codec, pix_fmt, suffix):
    source = tmp_path / f"in{suffix}"
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    if codec == "libsvtav1":
        options["preset"] = "12"
    make_clip(source, regular(5), codec=codec, pix_fmt=pix_fmt, options=options)
    before = look(source)
    _, after = enlarge(source, magic, VideoOptions(segment=3))
    same_times(before, after)
    assert (after["codec"], after["format"]) == (before["codec"], before["format"])
    # The picture is still the picture: compare with a plain enlargement of the first frame.
    wanted = before["frames"][0].reformat(128, 72, format="rgb24").to_ndarray().astype(int)
    got = after["frames"][0].reformat(format="rgb24").to_ndarray().astype(int)
    assert np.abs(wanted - got).mean() < 4


def test_pixel_aspect_is_kept_or_refused(tmp_path, magic):
    source = tmp_path / "in.mkv"
    make_clip(source, regular(3), codec="ffv1", aspect=Fraction(4, 3))
    assert not look(source)["aspect"]  # as PyAV writes Matroska
    make_clip(source, regular(3), aspect=Fraction(4, 3))
    _, after = enlarge(source, magic)
    assert after["aspect"] == Fraction(4, 3)
    for codec in ("ffv1", "av1"):
        with pytest.raises(OptionError, match="aspect"):
            upscale_video(source, tmp_path / "out.mkv", magic, VideoOptions(codec=codec))
    with pytest.raises(OptionError, match="aspect"):
        upscale_video(source, tmp_path / "out.webm", magic)
    _, after = enlarge(source, magic, VideoOptions(codec="av1"), tmp_path / "out.mp4")
    assert after["aspect"] == Fraction(4, 3)


def test_an_untagged_clip_that_grows_into_hd_says_its_matrix(tmp_path):
    source = tmp_path / "in.mkv"
    make_clip(source, regular(2), size=(640, 64))
    _, after = enlarge(source, Upscaler("magic", 2))
    assert after["colour"][2] == 6
    make_clip(source, regular(2), size=(320, 64))
    _, after = enlarge(source, Upscaler("magic", 2))
    assert after["colour"][2] == 2


@pytest.mark.parametrize(
    ("pix_fmt", "wanted"), [("bgr0", "bgr0"), ("gray", "yuv420p"), ("gbrp10le", "gbrp10le")]
)
def test_rgb_and_grey_are_taken(tmp_path, magic, pix_fmt, wanted):
    source = tmp_path / "in.mkv"
    make_clip(source, regular(2), codec="ffv1", pix_fmt=pix_fmt)
    before = look(source)
    _, after = enlarge(source, magic, VideoOptions())
    assert (after["codec"], after["format"]) == ("ffv1", wanted)
    wanted = before["frames"][0].reformat(128, 72, format="rgb24").to_ndarray().astype(int)
    got = after["frames"][0].reformat(format="rgb24").to_ndarray().astype(int)
    assert np.abs(wanted - got).mean() < 4


HDR = {
    "pix_fmt": "yuv420p10le", "codec": "libx265", "colour": (9, 16, 9, 1),
    "options": {"x265-params": "log-level=none:max-cll=1000,400:master-display="
                "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,500)"},
}  # fmt: skip


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_hdr_tags_and_light_levels_are_kept(tmp_path, magic, codec):
    source = tmp_path / "in.mp4"
    make_clip(source, regular(4), **HDR)
    before = look(source)
    assert len(before["side"]) == 2
    _, after = enlarge(source, magic, VideoOptions(codec=codec, segment=4))
    assert after["colour"] == before["colour"] == (9, 16, 9, 1)
    assert after["format"] == "yuv420p10le"
    was, now = probe(source).mastering, probe(tmp_path / "out.mp4").mastering
    assert now.light == was.light == (1000, 400)
    for a, b in zip(was.primaries, now.primaries, strict=True):
        assert a == pytest.approx(b, abs=2e-5)
    assert now.luminance == pytest.approx(was.luminance, rel=1e-3)


def test_hlg_full_range_rotation_and_aspect_are_kept(tmp_path, magic):
    source = tmp_path / "in.mp4"
    make_clip(
        source, regular(4), pix_fmt="yuv420p10le", colour=(9, 18, 9, 2), rotation=90,
        aspect=Fraction(4, 3),
    )  # fmt: skip
    before = look(source)
    assert before["rotation"] == 90
    _, after = enlarge(source, magic)
    assert after["colour"] == before["colour"] == (9, 18, 9, 2)
    assert after["rotation"] == before["rotation"]
    assert after["aspect"] == before["aspect"] == Fraction(4, 3)


@pytest.mark.parametrize(
    ("pix_fmt", "matrix", "span", "luma", "chroma"),
    [
        ("yuv420p", 1, 1, 1, 2), ("yuv444p", 1, 1, 1, 1), ("yuv420p", 5, 1, 1, 2),
        ("yuv444p10le", 9, 1, 1, 1), ("yuv420p10le", 9, 1, 1, 4), ("yuv422p10le", 1, 1, 1, 3),
        # libswscale is less exact in full range.
        ("yuv444p", 1, 2, 1, 1), ("yuv444p10le", 9, 2, 3, 3),
    ],
)  # fmt: skip
def test_colour_goes_to_rgb_and_back(tmp_path, pix_fmt, matrix, span, luma, chroma):
    source = tmp_path / "in.mkv"
    make_clip(source, regular(1), codec="ffv1", pix_fmt=pix_fmt, colour=(1, 1, matrix, span))
    clip = probe(source)
    converter = Converter(clip)
    with av.open(str(source)) as opened:
        frame = next(opened.decode(video=0))
    pixels = converter.to_rgb(frame)
    assert pixels.dtype == (np.uint16 if clip.depth > 8 else np.uint8)
    # The RGB is the RGB that was put in, by the stream's own matrix.
    wanted = picture(0).astype(float) / 65535
    assert np.abs(pixels / np.iinfo(pixels.dtype).max - wanted).mean() < 0.01
    back = converter.from_rgb(pixels, pix_fmt)
    for number, (a, b) in enumerate(zip(planes(frame), planes(back), strict=True)):
        assert np.abs(a - b).max() <= (luma if number == 0 else chroma)


def planes(frame):
    kind = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    return [
        np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width].astype(int)
        for plane in frame.planes
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_no_encoder_takes_real_time_priority(tmp_path, magic, monkeypatch):
    make_clip(tmp_path / "clip.mkv", regular(24))
    taken = set()

    def watched(self, *args):
        taken.update(real_time_threads())
        return encode(self, *args)

    encode = SegmentEncoder.encode
    monkeypatch.setattr(SegmentEncoder, "encode", watched)
    enlarge(tmp_path / "clip.mkv", magic, VideoOptions(codec="av1", preset="12", segment=8))
    assert not taken
    assert not real_time_threads()


def test_still_frames_are_not_computed_again(tmp_path):
    calls = []

    class Counting(Upscaler):
        def __call__(self, *arguments, **options):
            calls.append(1)
            return super().__call__(*arguments, **options)

    source = tmp_path / "in.mkv"
    make_clip(source, regular(20), codec="ffv1", pictures=lambda n, w, h: picture(n // 5, w, h))
    result, after = enlarge(source, Counting("magic", 2), VideoOptions(segment=6))
    assert len(calls) == 4
    assert (result.frames, result.repeated) == (20, 16)
    assert len(after["frames"]) == 20


def test_what_the_container_cannot_hold_is_refused_before_any_work(tmp_path, magic):
    source = tmp_path / "in.mkv"
    make_clip(source, regular(3), subtitles=True)
    target = tmp_path / "out.mp4"
    with pytest.raises(OptionError, match=r"subtitle.*mkv"):
        upscale_video(source, target, magic, QUICK)
    with pytest.raises(OptionError, match="cannot hold ffv1"):
        upscale_video(source, target, magic, VideoOptions(codec="ffv1"))
    assert not target.exists()
    assert not work_folder(target).exists()


def test_options_that_cannot_be_are_refused(tmp_path, magic):
    source = tmp_path / "in.mkv"
    make_clip(source, regular(3), pix_fmt="yuv444p")
    for options in (
        VideoOptions(codec="av1"), VideoOptions(codec="nothing"), VideoOptions(preset="swift"),
        VideoOptions(quality=0), VideoOptions(segment=1), VideoOptions(codec="ffv1", preset="slow"),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            upscale_video(source, tmp_path / "out.mkv", magic, options)
    with pytest.raises(ImageTooLargeError):
        upscale_video(source, tmp_path / "out.mkv", magic, VideoOptions(max_pixels=1000))
    with pytest.raises(ImageError, match="frames"):
        upscale_video(source, tmp_path / "out.mkv", magic, VideoOptions(max_frames=2))
    with pytest.raises(OutputError):
        upscale_video(source, tmp_path / "out.txt", magic)


class Stop(Exception):
    pass


def stop_at(frame):
    def progress(state):
        if state.done == frame:
            raise Stop

    return progress


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_an_interrupted_job_goes_on_and_ends_the_same(tmp_path, magic, suffix):
    source = tmp_path / f"in{suffix}"
    make_clip(source, irregular(40), sounds=1)
    whole, _ = enlarge(source, magic, target=tmp_path / f"whole{suffix}")
    assert whole.resumed == 0
    target = tmp_path / f"out{suffix}"
    for frame in (3, 13, 30):
        with pytest.raises(Stop):
            upscale_video(source, target, magic, QUICK, progress=stop_at(frame))
        assert not target.exists()
    result = upscale_video(source, target, magic, QUICK)
    assert (result.resumed, result.frames, result.notes) == (24, 40, ())
    assert target.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def test_another_source_model_or_option_starts_over(tmp_path, magic):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    make_clip(source, regular(20))

    def interrupt():
        with pytest.raises(Stop):
            upscale_video(source, target, magic, QUICK, progress=stop_at(12))

    interrupt()
    better = VideoOptions(preset="ultrafast", segment=8, quality=90)
    result = upscale_video(source, target, magic, better)
    assert result.resumed == 0
    assert "options changed" in result.notes[0]
    interrupt()
    result = upscale_video(source, target, Upscaler("bicubic", 2), QUICK)
    assert "model" in result.notes[0]
    interrupt()
    make_clip(source, regular(21))
    result = upscale_video(source, target, magic, QUICK)
    assert "source changed" in result.notes[0]
    assert result.frames == 21


def test_a_damaged_segment_is_done_again(tmp_path, magic):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    make_clip(source, regular(40))
    enlarge(source, magic, target=tmp_path / "whole.mp4")
    with pytest.raises(Stop):
        upscale_video(source, target, magic, QUICK, progress=stop_at(30))
    second = sorted(work_folder(target).glob("[0-9]*.npz"))[1]
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 1
    second.write_bytes(content)
    result = upscale_video(source, target, magic, QUICK)
    assert result.resumed == 8
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_two_jobs_cannot_write_one_output(tmp_path, magic):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    make_clip(source, regular(4))
    with locked(work_folder(target)), pytest.raises(OutputError, match="another run"):
        upscale_video(source, target, magic, QUICK)
    enlarge(source, magic, target=target)


def test_a_job_that_is_killed_at_any_moment_goes_on(tmp_path):
    """SIGKILL from outside, at random moments; never a partial result, always the same one."""
    source = tmp_path / "in.mkv"
    make_clip(source, irregular(60), sounds=1, subtitles=True)
    command = ("upscale", source, "-m", "magic", "--segment", 8, "--preset", "ultrafast", "-o")
    whole = tmp_path / "whole.mkv"
    assert run(*command, whole).returncode == 0
    target, rng = tmp_path / "out.mkv", random.Random(5)
    for _ in range(3):
        job = subprocess.Popen(
            [sys.executable, "-m", "paragonsr2", *map(str, command), str(target)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wanted = rng.randint(1, 6)
        while job.poll() is None and len(list(work_folder(target).glob("[0-9]*.npz"))) < wanted:
            pass
        job.kill()
        job.wait()
        assert not target.exists() or target.read_bytes() == whole.read_bytes()
    assert run(*command, target).returncode == 0
    assert target.read_bytes() == whole.read_bytes()
    assert not work_folder(target).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_ctrl_c_says_what_is_kept_and_the_next_run_says_where_it_resumes(tmp_path):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    make_clip(source, irregular(120), size=(128, 96))
    command = [
        "upscale", source, "-o", target, "-m", "stream", "--segment", 8, "--preset", "ultrafast",
        "--temporal", "off",
    ]  # fmt: skip
    # Ctrl-C comes before the third segment is kept, however busy the machine is. A test run in the
    # background may ignore the signal, and so would its children.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from paragonsr2.cli.main import main\n"
        "from paragonsr2.clips.segments import SegmentStore\n"
        "append = SegmentStore.append\n"
        "def interrupted(store, *segment):\n"
        "    if store.frames == 16: signal.raise_signal(signal.SIGINT)\n"
        "    append(store, *segment)\n"
        "SegmentStore.append = interrupted\n"
        "main()"
    )
    job = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    stdout, stderr = job.stdout, job.stderr
    assert job.returncode == 130, stderr
    assert stdout == ""
    assert len(stderr.splitlines()) == 1
    kept = 8 * len(list(work_folder(target).glob("[0-9]*.npz")))
    assert kept == 16
    assert f"interrupted: {kept} of about " in stderr
    assert str(work_folder(target)) in stderr
    assert "same command" in stderr
    again = run(*command, "--events")
    assert again.returncode == 0
    assert f"resuming after frame {kept} of about " in again.stderr
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert [e["resumed"] for e in events if e["event"] == "result"] == [kept]


def test_a_plan_opens_the_source_once_and_touches_no_file(tmp_path, monkeypatch):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    make_clip(source, regular(5), sounds=2, subtitles=True)
    opened = []

    def counting(file, *arguments, **options):
        opened.append(file)
        return av_open(file, *arguments, **options)

    av_open = av.open
    monkeypatch.setattr(av, "open", counting)
    plan = plan_video(source, target, 2)
    assert opened.count(str(source)) == 1
    assert (plan.clip.width, plan.encoding.width, plan.encoding.codec) == (64, 128, "h264")
    assert len(plan.copy.streams) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_a_resumed_job_keeps_its_tile_and_leaves_the_upscaler_alone(tmp_path):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    make_clip(source, regular(20))
    seen = set()

    class Watched(Upscaler):
        def __call__(self, *arguments, **options):
            seen.add((self.tile, options["tile"]))
            return super().__call__(*arguments, **options)

    first, second = Watched("magic", 2), Watched("magic", 2)
    first.tile, second.tile = 32, 48
    with pytest.raises(Stop):
        upscale_video(source, target, first, QUICK, progress=stop_at(12))
    assert seen == {(32, 32)}
    seen.clear()
    assert upscale_video(source, target, second, QUICK).resumed == 8
    assert seen == {(48, 32)}


def test_opening_an_encoder_prints_nothing_and_leaves_the_environment(tmp_path):
    make_clip(tmp_path / "in.mkv", regular(3))
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from paragonsr2.upscale.upscaler import Upscaler\n"
        "from paragonsr2.upscale.video import VideoOptions, upscale_video\n"
        "assert 'SVT_LOG' not in os.environ\n"
        "upscale_video(Path(sys.argv[1]), Path(sys.argv[2]), Upscaler('magic', 2),"
        " VideoOptions(codec='av1', preset='12'))\n"
        "assert 'SVT_LOG' not in os.environ\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "in.mkv", tmp_path / "out.mkv"],
        capture_output=True, text=True, check=False,
        env={key: value for key, value in os.environ.items() if key != "SVT_LOG"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_quality_flag_is_for_its_own_kind(tmp_path):
    source = tmp_path / "in.mkv"
    make_clip(source, regular(6), size=(128, 96))
    fails_cleanly(run("upscale", source, "-m", "magic", "--quality", 50), 2)
    fails_cleanly(run("upscale", source, "-m", "magic", "--ensemble"), 2)
    sizes = []
    for quality in (20, 90):
        target = tmp_path / f"{quality}.mkv"
        done = run("upscale", source, "-m", "magic", "-o", target, "--video-quality", quality)
        assert done.returncode == 0, done.stderr
        sizes.append(target.stat().st_size)
    assert sizes[0] < sizes[1] / 2
    write_picture(tmp_path / "a.png", Picture(photo_like(16, 16)))
    fails_cleanly(run("upscale", tmp_path / "a.png", "-m", "magic", "--video-quality", 50), 2)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_a_truncated_or_damaged_clip_ends_in_a_file_or_one_line(tmp_path, magic, suffix):
    source = tmp_path / f"in{suffix}"
    make_clip(source, regular(30), sounds=0 if suffix == ".avi" else 1)
    good = source.read_bytes()
    rng = np.random.default_rng(1)
    done = 0
    for trial in range(8):
        content = bytearray(good)
        if trial < 3:
            content = content[: int(len(content) * (trial + 1) / 4)]
        else:
            for place in rng.integers(0, len(content), 10):
                content[place] = int(rng.integers(0, 256))
        bad = tmp_path / f"bad{suffix}"
        bad.write_bytes(content)
        target = tmp_path / f"bad_x2{'.mkv' if suffix in ('.avi', '.ts') else suffix}"
        target.unlink(missing_ok=True)
        refused = ""
        try:
            upscale_video(bad, target, magic, QUICK)
        except ImageError as error:
            refused = str(error)
        assert "\n" not in refused
        assert target.exists() == (refused == "")
        done += target.exists() and len(look(target)["frames"]) > 0
        assert [path.name for path in tmp_path.glob(".*")] == []
    assert done


def test_the_command_takes_folders_of_both_and_reports(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    make_clip(folder / "a.avi", regular(4), codec="mpeg4")
    (folder / "b.mp4").write_text("no video")
    result = run("upscale", folder, "-o", tmp_path / "out", "-m", "magic", "--json")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    rows = {Path(row["input"]).name: row for row in json.loads(result.stdout)["results"]}
    assert rows["a.avi"]["frames"] == 4
    assert rows["b.mp4"]["status"] == "failed"
    assert (tmp_path / "out" / "a.mkv").exists()


def test_the_command_refuses_in_one_line(tmp_path):
    source = tmp_path / "in.mp4"
    make_clip(source, regular(3))
    result = run("upscale", source, "-m", "magic", "--codec", "ffv1")
    fails_cleanly(result, 1)


def test_a_playlist_reaches_no_other_file(tmp_path):
    make_clip(tmp_path / "secret.ts", regular(3))
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nsecret.ts\n")
    with pytest.raises(ImageError):
        probe(playlist)
    playlist.write_text("ffconcat version 1.0\nfile secret.ts\n")
    with pytest.raises(ImageError):
        probe(playlist)


def test_video_is_told_from_images(tmp_path):
    clip = tmp_path / "clip.mkv"
    make_clip(clip, regular(3))
    bare = tmp_path / "bare"
    bare.write_bytes(clip.read_bytes())
    assert is_video(clip)
    assert is_video(bare)
    assert not is_video(tmp_path / "photo.jpg")
    bare.write_bytes(b"\0\0\0\x1cftypavif")
    assert not is_video(bare)


def test_frames_are_read_from_anywhere(tmp_path):
    source = tmp_path / "in.mp4"
    pts = irregular(30)
    make_clip(source, pts)
    clip = probe(source)
    assert clip.time_base == TICKS
    frames = list(read_frames(clip))
    assert [frame.pts for frame in frames] == pts
    late = list(read_frames(clip, start=17))
    assert [frame.index for frame in late] == list(range(17, 30))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(frames[17:], late, strict=True))


def test_an_option_of_the_encoder_reaches_it_and_an_unknown_one_is_named(tmp_path):
    source = tmp_path / "in.mkv"
    make_clip(source, regular(12), size=(128, 96))
    sizes = []
    for option in ("crf=40", "crf=5"):
        target = tmp_path / f"{option}.mkv"
        done = run("upscale", source, "-m", "magic", "-o", target, "--encoder-option", option)
        assert done.returncode == 0, done.stderr
        sizes.append(target.stat().st_size)
    assert sizes[0] < sizes[1] / 2
    # An addition to the parameters that segments need.
    target = tmp_path / "p.mkv"
    done = run(
        "upscale", source, "-m", "magic", "-o", target, "--codec", "h264",
        "--encoder-option", "x264-params=qp=50",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert target.stat().st_size < sizes[0]
    fails_cleanly(run("upscale", source, "-m", "magic", "--encoder-option", "crf"), 2)
    target = tmp_path / "n.mkv"
    done = run("upscale", source, "-m", "magic", "-o", target, "--encoder-option", "n=1")
    assert "has no option n" in done.stderr
    assert done.returncode != 0
    assert not target.exists()


def test_x264_keeps_to_instructions_that_repeat_themselves(tmp_path):
    make_clip(tmp_path / "in.mkv", regular(3))
    plan = plan_clip(tmp_path / "in.mkv", tmp_path / "out.mkv", 2, codec="h264", gop=30)
    given = plan.encoding.options["x264-params"].split(":")
    assert {f"{key}={value}" for key, value in x264_instructions().items()} <= set(given)


HARDWARE = [name for name, row in CODECS.items() if row.hardware]


@pytest.mark.parametrize("name", HARDWARE)
def test_an_encoder_of_missing_hardware_is_one_line_that_names_another(name, tmp_path):
    source = tmp_path / "in.mkv"
    make_clip(source, regular(3), size=(128, 96))
    other = f"--codec {CODECS[name].stream}"
    with pytest.raises((OptionError, OutputError), match=other):  # noqa: PT012 - either may refuse
        plan = plan_clip(source, tmp_path / "out.mkv", 2, codec=name, gop=30)
        SegmentEncoder(plan.encoding)
        pytest.skip("this machine has that hardware")


@pytest.mark.parametrize("name", HARDWARE)
def test_settings_of_hardware_are_those_of_its_stream(name, tmp_path, magic, monkeypatch):
    """The encoder itself is played by the one in software."""
    row = CODECS[name]
    soft = CODECS[row.stream]
    played = replace(
        row, encoder=soft.encoder, rate=soft.rate, presets=soft.presets, preset=soft.preset,
        preset_option="preset", formats=("yuv420p",),
    )  # fmt: skip
    monkeypatch.setitem(CODECS, name, played)
    source, target = tmp_path / "in.mkv", tmp_path / "out.mp4"
    make_clip(source, regular(5), size=(128, 96))
    assert plan_clip(source, target, 2, codec=name, gop=30).encoding.codec == name
    result = upscale_video(source, tmp_path / "o.mkv", magic, VideoOptions(codec=name))
    assert result.frames == 5
    low, high = (
        plan_clip(source, target, 2, codec=name, quality=quality, gop=30).encoding.options
        for quality in (20, 90)
    )
    assert low != high
    with pytest.raises(OptionError, match="cannot hold"):
        plan_clip(source, tmp_path / "out.webm", 2, codec="h264_nvenc", gop=30)
