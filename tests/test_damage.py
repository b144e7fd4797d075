"""What is damaged is refused, or done with a note; nothing damaged passes for whole."""

from __future__ import annotations

import json
import re
import zlib

import av
import numpy as np
import pytest
import pyvips

from clips import make_clip, regular
from conftest import photo_like
from paragonsr2.clips.clip import probe
from paragonsr2.clips.damage import Damage, broken_chain
from paragonsr2.clips.frames import read_frames
from paragonsr2.errors import ImageError
from paragonsr2.images import reading
from paragonsr2.images.reading import ImageReader, read_picture
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler
from test_cli import run


@pytest.fixture(scope="module")
def magic():
    return Upscaler("magic", 2)


def encoded(suffix, height=120, **options):
    pixels = photo_like(height, 90)
    return pyvips.Image.new_from_array(pixels).write_to_buffer(suffix, **options)


def broken_deflate():
    """A TIFF whose first strip is damaged after its first sixth."""
    content = bytearray(encoded(".tif", compression="deflate"))
    start = content.index(b"\x78\x9c")
    data = zlib.decompressobj()
    data.decompress(bytes(content[start:]))
    middle = start + (len(content) - start - len(data.unused_data)) // 6
    content[middle : middle + 40] = b"\xff" * 40
    return bytes(content)


def cut(content):
    return content[: len(content) * 2 // 3]


REFUSED = {
    "deflate.tif": broken_deflate(),
    "cut.tif": cut(encoded(".tif", compression="lzw")),
    "cut.gif": cut(encoded(".gif")),
    "cut.png": cut(encoded(".png")),
    "cut.jpg": cut(encoded(".jpg")),
    "cut.webp": cut(encoded(".webp")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_damaged_picture_is_refused(name, tmp_path, magic):
    source = tmp_path / name
    source.write_bytes(REFUSED[name])
    outcome = run_task(Task(source, tmp_path / "out.png"), magic)
    assert outcome.status == "failed"
    assert "damaged" in outcome.message
    assert not (tmp_path / "out.png").exists()


def broken_scan(height=120):
    """A JPEG with restart marks, one of which the decoder does not find where it should be."""
    content = bytearray(encoded(".jpg", height=height, restart_interval=4))
    at = re.compile(rb"\xff[\xd0-\xd7]").search(content, len(content) * 2 // 3).start()
    content[at : at + 2] = b"\x11\x22"
    return bytes(content)


def with_junk():
    """A whole JPEG with bytes before a marker that do not belong there, as some cameras write."""
    content = encoded(".jpg")
    at = content.index(b"\xff\xdb")
    return content[:at] + b"\x00\x01\x02\x03" + content[at:]


@pytest.mark.parametrize("content", [broken_scan(), with_junk()], ids=["scan", "junk"])
def test_what_decodes_with_warnings_is_done_with_a_note(content, tmp_path, magic):
    source, target = tmp_path / "a.jpg", tmp_path / "out.png"
    source.write_bytes(content)
    outcome = run_task(Task(source, target), magic)
    assert outcome.status == "done"
    assert len(outcome.notes) == 1
    assert outcome.notes[0].startswith("decoded with warnings: ")
    assert "JPEG" in outcome.notes[0]
    assert outcome.notes[0] in outcome.message
    whole = pyvips.Image.new_from_buffer(content, "", fail_on="none").numpy()
    assert np.array_equal(read_picture(source).pixels, whole)
    target.unlink()
    outcome = run_task(Task(source, target), magic, strict=True)
    assert outcome.status == "failed"
    assert not outcome.notes
    assert not target.exists()


def flipped_deflate():
    """A TIFF in which a bit of a pixel has changed, and only the checksum tells."""
    content = bytearray(encoded(".tif", compression="deflate"))
    start = content.index(b"\x78\x9c")
    inflate = zlib.decompressobj()
    inflate.decompress(bytes(content[start:]))
    end = len(content) - len(inflate.unused_data)
    content[end - 2] ^= 1
    return bytes(content)


def gif_that_ends_early():
    """A frame whose data are cut short, in a file that is complete."""
    content = encoded(".gif")
    start = content.index(b",", 13 + (3 << ((content[10] & 7) + 1)))
    place = start + 10 + (3 << ((content[start + 9] & 7) + 1) if content[start + 9] & 128 else 0)
    first = place + 1
    return content[: first + 1 + content[first]] + b"\0;"


def webp_with_a_hole():
    content = bytearray(encoded(".webp"))
    content += b"\0\1\2\3\4\5\6\7"
    content[4:8] = (len(content) - 8).to_bytes(4, "little")
    return bytes(content)


def jpeg_without_an_end():
    """A JPEG whose scan holds a byte that looks like a marker, where its end should be."""
    content = bytearray(encoded(".jpg"))
    content[-2:] = b"\xff\x37"
    return bytes(content)


BROKEN = {
    "a.jpg": (jpeg_without_an_end(), "no marker"),
    "a.tif": (flipped_deflate(), "strip"),
    "a.gif": (gif_that_ends_early(), "end early"),
    "b.gif": (encoded(".gif")[:-1] + b"\7", "no block"),
    "a.webp": (webp_with_a_hole(), "no chunk"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_decoder_passes_over_is_noted(name, tmp_path, magic):
    content, said = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    task = Task(tmp_path / name, tmp_path / "out.png")
    outcome = run_task(task, magic)
    if outcome.status == "failed":
        assert "damaged" in outcome.message
        return
    assert said in outcome.notes[0]
    task.target.unlink()
    assert run_task(task, magic, strict=True).status == "failed"


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png", ".jpg", ".avif"])
def test_a_whole_picture_has_no_note(suffix, tmp_path, magic):
    options = [{}]
    if suffix == ".tif":
        options += [{"compression": "deflate", "bigtiff": big} for big in (False, True)]
        options.append({"compression": "deflate", "tile": True, "pyramid": True})
    for number, given in enumerate(options):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(encoded(suffix, height=300, **given))
        assert run_task(Task(path, tmp_path / f"out{number}.png"), magic).notes == ()


def test_a_warning_in_the_middle_of_a_strip_by_strip_decode_is_noted(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(broken_scan(height=2000))
    whole = read_picture(tmp_path / "a.jpg").pixels
    monkeypatch.setattr(reading, "AT_ONCE", 1 << 14)
    monkeypatch.setattr(reading, "STRIP", 1 << 12)
    with ImageReader(tmp_path / "a.jpg") as reader:
        assert not reader.warnings
        strips = list(reader.strips())
        assert len(reader.warnings) == 1
    assert len(strips) > 10
    assert np.array_equal(np.concatenate(strips), whole)
    with ImageReader(tmp_path / "a.jpg", strict=True) as reader, pytest.raises(ImageError):
        list(reader.strips())


def test_notes_reach_message_summary_and_programs(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(broken_scan())
    (tmp_path / "good.jpg").write_bytes(encoded(".jpg"))
    command = ("upscale", tmp_path, "-o", tmp_path / "out", "--model", "magic", "--overwrite")
    plain = run(*command)
    assert plain.returncode == 0
    assert "bad.jpg: done: decoded with warnings" in plain.stderr
    assert "2 done, 1 with notes" in plain.stderr
    events = [json.loads(line) for line in run(*command, "--events").stdout.splitlines()]
    results = {e["input"][-8:]: e["notes"] for e in events if e["event"] == "result"}
    assert [len(notes) for _, notes in sorted(results.items())] == [1, 0]
    assert events[-1]["noted"] == 1
    strict = run(*command, "--strict", "--json")
    assert strict.returncode == 1
    summary = json.loads(strict.stdout)
    assert (summary["done"], summary["failed"], summary["noted"]) == (1, 1, 0)


def clip(folder, name, **options):
    make_clip(folder / name, regular(30), **options)
    return folder / name


def enlarged(source, magic, **options):
    target = source.with_name(f"out{source.stem}.mkv")
    target.unlink(missing_ok=True)
    outcome = run_task(Task(source, target), magic, **options)
    assert target.exists() == (outcome.status == "done")
    return outcome


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.mov", "sound.mkv"])
def test_a_whole_clip_has_no_note(name, tmp_path, magic):
    codec = {"codec": "mpeg4"} if name.endswith("avi") else {}
    source = clip(tmp_path, name, sounds=int(name.startswith("sound")), **codec)
    assert enlarged(source, magic).notes == ()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_clip_cut_short_is_noted_with_its_frames(name, tmp_path, magic):
    source = clip(tmp_path, name, **({"codec": "mpeg4"} if name == "a.avi" else {}))
    if name == "a.mp4":
        source = with_index_first(source)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 2])
    outcome = enlarged(source, magic)
    assert outcome.status == "done"
    (note,) = outcome.notes
    assert "cut short" in note
    assert f"{outcome.frames} frames" in note
    assert "written" in note
    assert 0 < outcome.frames < 30
    if name == "a.mp4":
        assert f"{30 - outcome.frames} frames are missing" in note
        assert "of 30 expected" in note
    strict = enlarged(source, magic, strict=True)
    assert strict.status == "failed"
    assert "--strict" in strict.message


def with_index_first(path):
    """The MP4 file with its index before the frames, where a cut does not take it."""
    moved = path.with_name(f"first_{path.name}")
    with (
        av.open(str(path)) as source,
        av.open(str(moved), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return moved


def test_frames_that_do_not_decode_are_counted(tmp_path, magic):
    source = clip(tmp_path, "a.mkv", codec="ffv1")
    content = bytearray(source.read_bytes())
    for place in (len(content) // 3, len(content) * 2 // 3):
        content[place : place + 400] = bytes(400)
    source.write_bytes(content)
    damage = Damage()
    seen = len(list(read_frames(probe(source), damage=damage)))
    assert seen == damage.decoded
    (note,) = enlarged(source, magic).notes
    assert "damaged" in note
    assert f"{seen} frames are written" in note


def test_lost_packets_are_counted(tmp_path, magic):
    source = clip(tmp_path, "a.ts")
    packets = source.read_bytes()
    middle = len(packets) // 188 // 2 * 188
    source.write_bytes(packets[:middle] + packets[middle + 3 * 188 :])
    (note,) = enlarged(source, magic).notes
    assert "packets are lost" in note


def test_a_chain_breaks_where_it_is_broken(tmp_path):
    source = clip(tmp_path, "a.mkv", sounds=1)
    content = source.read_bytes()
    assert broken_chain(source) == ""
    first, last = content.index(b"\x1fC\xb6u"), content.rindex(b"\x1cS\xbbk")
    for place in range(first, last, 97):
        source.write_bytes(content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :])
        assert broken_chain(source), place


def test_a_live_recording_is_whole(tmp_path):
    """Its elements have no sizes, for nobody knew when it would end."""
    with av.open(str(tmp_path / "a.mkv"), "w", options={"live": "1"}) as out:
        stream = out.add_stream("ffv1", 10)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for n in range(20):
            frame = av.VideoFrame.from_ndarray(photo_like(36, 64, seed=n), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    assert broken_chain(tmp_path / "a.mkv") == ""
