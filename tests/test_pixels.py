"""Image files: what goes in comes out, and what is no image is said to be none."""

from __future__ import annotations

import numpy as np
import pytest
import pyvips

from conftest import photo_like
from paragonsr2.errors import ImageError, ImageTooLargeError, OutputError
from paragonsr2.images.formats import WRITABLE
from paragonsr2.images.header import Picture
from paragonsr2.images.reading import read_picture
from paragonsr2.images.writing import write_picture

LOSSLESS = [".png", ".tif"]


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("deep", [False, True])
def test_lossless_round_trip(tmp_path, suffix, channels, deep):
    pixels = photo_like(21, 34, channels)
    if deep:
        pixels = pixels.astype(np.uint16) * 251 + 3
    path = tmp_path / f"x{suffix}"
    write_picture(path, Picture(pixels))
    back = read_picture(path).pixels
    assert back.dtype == pixels.dtype
    np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize("suffix", [form.suffixes[0] for form in WRITABLE.values()])
def test_every_format_goes_out_and_in(tmp_path, suffix):
    pixels = photo_like(40, 60)
    path = tmp_path / f"x{suffix}"
    write_picture(path, Picture(pixels), quality=95)
    back = read_picture(path).pixels
    assert back.shape == pixels.shape
    assert np.abs(back.astype(int) - pixels).mean() < 5
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_alpha_survives_lossy_formats(tmp_path, suffix):
    pixels = photo_like(40, 60, 4)
    pixels[:, :30, 3] = 255
    pixels[:, 30:, 3] = 0
    write_picture(tmp_path / f"x{suffix}", Picture(pixels))
    back = read_picture(tmp_path / f"x{suffix}").pixels
    assert np.abs(back[:, :, 3].astype(int) - pixels[:, :, 3]).mean() < 5


def test_jpeg_lays_alpha_on_white(tmp_path):
    pixels = np.zeros((16, 16, 4), dtype=np.uint8)
    write_picture(tmp_path / "x.jpg", Picture(pixels))
    assert read_picture(tmp_path / "x.jpg").pixels.min() >= 250


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(tmp_path, orientation):
    upright = np.zeros((24, 40, 3), dtype=np.uint8)
    upright[:8, :8] = 255
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    stored = np.ascontiguousarray(turn[orientation](upright))
    image = pyvips.Image.new_from_array(stored).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    source = tmp_path / "turned.jpg"
    image.write_to_file(str(source), Q=100)
    picture = read_picture(source)
    assert picture.pixels.shape == upright.shape
    assert np.abs(picture.pixels.astype(int) - upright).mean() < 2
    write_picture(tmp_path / "again.jpg", picture)
    again = pyvips.Image.new_from_file(str(tmp_path / "again.jpg"))
    assert not again.get_typeof("orientation") or again.get("orientation") == 1
    assert (again.width, again.height) == (40, 24)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_profile_and_exif_are_kept(tmp_path, suffix):
    image = pyvips.Image.new_from_array(photo_like(16, 16)).copy(interpretation="srgb")
    image = image.icc_transform("p3", input_profile="srgb")
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Artist", "A. Painter (A. Painter, ASCII)")
    source = tmp_path / "in.jpg"
    image.write_to_file(str(source), Q=95)
    picture = read_picture(source)
    assert "icc-profile-data" in picture.carried
    target = tmp_path / f"out{suffix}"
    write_picture(target, picture)
    back = pyvips.Image.new_from_file(str(target))
    assert back.get("icc-profile-data") == image.get("icc-profile-data")
    if suffix != ".tif":  # libvips writes no EXIF into TIFF
        assert "A. Painter" in back.get("exif-ifd0-Artist")


def test_resolution_is_kept(tmp_path):
    write_picture(tmp_path / "x.png", Picture(photo_like(8, 8), {}, (11.81, 11.81)))
    assert read_picture(tmp_path / "x.png").resolution == pytest.approx((11.81, 11.81), abs=0.01)


def test_cmyk_becomes_rgb(tmp_path):
    image = pyvips.Image.new_from_array(photo_like(16, 16)).copy(interpretation="srgb")
    image.icc_transform("cmyk", input_profile="srgb").write_to_file(str(tmp_path / "x.tif"))
    pixels = read_picture(tmp_path / "x.tif").pixels
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels.astype(int) - photo_like(16, 16)).mean() < 25


def test_palette_and_one_bit_are_read(tmp_path):
    image = pyvips.Image.new_from_array(photo_like(16, 16)).copy(interpretation="srgb")
    image.write_to_file(str(tmp_path / "p.png"), palette=True)
    assert read_picture(tmp_path / "p.png").pixels.shape == (16, 16, 3)
    grey = pyvips.Image.new_from_array(photo_like(16, 16, 1))
    grey.write_to_file(str(tmp_path / "b.png"), bitdepth=1)
    assert read_picture(tmp_path / "b.png").pixels.dtype == np.uint8


def broken(tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    write_picture(path, Picture(photo_like(64, 64)))
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "text":
        path = path.with_suffix(".jpg")
        path.write_text("this is not a picture\n" * 50)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "header":
        path.write_bytes(content[:33])
    elif kind == "missing":
        path.unlink()
    return path


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "header", "missing"])
def test_what_is_no_image_is_said_in_one_line(tmp_path, kind):
    with pytest.raises(ImageError) as caught:
        read_picture(broken(tmp_path, kind))
    assert "\n" not in str(caught.value)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    pyvips.Image.black(20000, 20000).write_to_file(str(path), compression=9)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ImageTooLargeError, match="--max-megapixels"):
        read_picture(path)


def test_unknown_suffix_and_bad_folder_are_refused(tmp_path):
    with pytest.raises(OutputError, match=r"\.xyz"):
        write_picture(tmp_path / "x.xyz", Picture(photo_like(4, 4)))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        write_picture(tmp_path / "file" / "x.png", Picture(photo_like(4, 4)))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    write_picture(path, Picture(photo_like(8, 8)))
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_picture(path, Picture(photo_like(9, 9)))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
