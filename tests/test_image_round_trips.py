"""Whole files through the upscaler, checked against Pillow and libvips by themselves.

The upscaler is the Magic Kernel: what is asked is what happens around it.
"""

from __future__ import annotations

import errno
import io
from typing import get_args

import av
import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, ImageDraw, ImageOps

from conftest import photo_like
from paragonsr2.errors import ImageError, ImageTooLargeError
from paragonsr2.images import png
from paragonsr2.images.formats import WRITABLE
from paragonsr2.images.header import Header, Picture
from paragonsr2.images.names import ImageFormatName
from paragonsr2.images.reading import ImageReader, read_picture
from paragonsr2.images.writing import write_picture, write_strips
from paragonsr2.upscale import upscaler as upscaler_module
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler


@pytest.fixture(scope="module")
def magic():
    return Upscaler("magic", 2)


@pytest.fixture
def enlarge(tmp_path, magic):
    """Enlarge a file into one of another suffix; gives the path and what was said."""

    def go(source, suffix=None, **options):
        target = tmp_path / "out" / (source.stem + (suffix or source.suffix))
        outcome = run_task(Task(source, target), magic, **options)
        assert outcome.status == "done", outcome.message
        return target, outcome.message

    return go


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_16_bit_ramp_keeps_its_steps(tmp_path, enlarge, magic, suffix):
    ramp = np.linspace(1000, 64000, 400).round().astype(np.uint16)[None].repeat(6, 0)
    source = tmp_path / f"ramp{suffix}"
    Image.fromarray(ramp).save(source)
    made, _ = enlarge(source)
    with Image.open(made) as opened:
        large = np.asarray(opened).astype(int)
    assert large.shape == (12, 800)
    inner = large[4, 8:-8]
    assert (np.diff(inner) > 0).all()
    # Between two pixel centres the ramp goes on in a straight line.
    x = (np.arange(800) + 0.5) / 2 - 0.5
    assert np.abs(inner - np.interp(x, np.arange(400), ramp[0])[8:-8]).max() <= 2


def test_icc_colours_look_the_same(tmp_path, enlarge):
    """Display P3 in, Display P3 out: what a colour managed viewer shows is unchanged."""
    flat = np.zeros((24, 24, 3), np.uint8)
    flat[:] = (200, 90, 40)
    image = pyvips.Image.new_from_array(flat).copy(interpretation="srgb")
    source = tmp_path / "p3.png"
    image.icc_transform("p3", input_profile="srgb").write_to_file(str(source))
    for suffix in (".png", ".jpg", ".webp", ".tif", ".avif"):
        made, _ = enlarge(source, suffix)
        with Image.open(made) as opened:
            profile = opened.info["icc_profile"]
            rgb = opened.convert("RGB")
        assert b"P3" in profile.replace(b"\0", b"")
        transform = ImageCms.profileToProfile(
            rgb,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )
        seen = np.asarray(transform).reshape(-1, 3).astype(int)
        assert np.abs(seen - (200, 90, 40)).max() <= 4, suffix


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".avif"])
def test_edges_of_alpha_have_no_fringe(tmp_path, enlarge, suffix):
    """A bright disc on nothing: laid on its own colour, no ring is to be seen."""
    y, x = np.mgrid[0:48, 0:48]
    inside = (y - 24) ** 2 + (x - 24) ** 2 < 15**2
    pixels = np.zeros((48, 48, 4), np.uint8)
    pixels[inside] = (240, 200, 60, 255)
    source = tmp_path / "disc.png"
    Image.fromarray(pixels).save(source)
    made, _ = enlarge(source, suffix, quality=100)
    with Image.open(made) as opened:
        large = opened.convert("RGBA")
    ground = Image.new("RGBA", large.size, (240, 200, 60, 255))
    laid = np.asarray(Image.alpha_composite(ground, large)).astype(int)
    assert np.abs(laid[:, :, :3] - (240, 200, 60)).max() <= 12
    alpha = np.asarray(large)[:, :, 3]
    assert {0, 255} <= set(np.unique(alpha))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_every_orientation_comes_out_upright(tmp_path, enlarge, orientation, suffix):
    corner = np.zeros((24, 40, 3), np.uint8)
    corner[:8, :16] = (250, 30, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = tmp_path / f"turned{suffix}"
    Image.fromarray(corner).save(source, exif=exif, quality=100)
    with Image.open(source) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    made, _ = enlarge(source)
    with Image.open(made) as large:
        assert large.size == (upright.width * 2, upright.height * 2)
        assert large.getexif().get(0x0112, 1) == 1
        small = np.asarray(large.convert("RGB").resize(upright.size, Image.Resampling.BOX))
    assert np.abs(small.astype(int) - np.asarray(upright)).mean() < 4


def marked(number, size=(24, 40)):
    """A picture that tells which page it is, and which way up it stands."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[:8, :16] = (250, 30, 30)
    pixels[12:20, 8 * number : 8 * number + 8] = (30, 30, 250)
    return Image.fromarray(pixels)


def saved_pages(path, orientations, **options):
    """A document of one page for each orientation tag; the pages as they should be seen."""
    pages, seen = [marked(number) for number in range(len(orientations))], []
    for page, orientation in zip(pages, orientations, strict=True):
        page.encoderinfo = {"tiffinfo": {0x0112: orientation}}
        page.getexif()[0x0112] = orientation
        seen.append(np.asarray(ImageOps.exif_transpose(page)))
    pages[0].save(
        path, save_all=True, append_images=pages[1:], tiffinfo={0x0112: orientations[0]}, **options
    )
    return seen


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("big", [False, True])
def test_every_page_of_a_tiff_comes_out_upright(tmp_path, enlarge, orientation, big):
    source = tmp_path / "turned.tif"
    seen = saved_pages(source, [orientation] * 3, big_tiff=big)
    with ImageReader(source) as reader:
        assert reader.header.pages == 3
        for page, strip in zip(seen, reader.strips(), strict=True):
            np.testing.assert_array_equal(strip, page)
    made, said = enlarge(source)
    assert not said
    with Image.open(made) as opened:
        assert opened.n_frames == 3
        for number, page in enumerate(seen):
            opened.seek(number)
            assert opened.getexif().get(0x0112, 1) == 1
            assert opened.size == (2 * page.shape[1], 2 * page.shape[0])


def test_pages_that_lie_differently_are_said_to_be_left(tmp_path, enlarge):
    saved_pages(tmp_path / "a.tif", [6, 1])
    made, said = enlarge(tmp_path / "a.tif")
    assert "only the first" in said
    with Image.open(made) as opened:
        assert opened.size == (48, 80)


def test_every_frame_of_an_animation_comes_out_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [marked(number) for number in range(3)]
    frames[0].save(
        tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True, duration=40,
        exif=exif,
    )  # fmt: skip
    with ImageReader(tmp_path / "a.webp") as reader:
        assert reader.header.delays == (40, 40, 40)
        for frame, strip in zip(frames, reader.strips(), strict=True):
            np.testing.assert_array_equal(strip[..., :3], np.rot90(np.asarray(frame), -1))


def test_a_turned_file_that_was_replaced_is_read_anew(tmp_path):
    """libvips keeps what it has decoded in any order, by name."""
    for value in (10, 200):
        saved = Image.fromarray(np.full((24, 40, 3), value, np.uint8))
        saved.save(tmp_path / "a.tif", tiffinfo={0x0112: 6})
        assert (read_picture(tmp_path / "a.tif").pixels == value).all()


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_goes_through_its_profile(tmp_path, enlarge, suffix):
    wanted = np.zeros((32, 32, 3), np.uint8)
    wanted[:16], wanted[16:] = (180, 60, 50), (60, 120, 90)
    rgb = pyvips.Image.new_from_array(wanted).copy(interpretation="srgb")
    source = tmp_path / f"ink{suffix}"
    rgb.icc_transform("cmyk", input_profile="srgb").write_to_file(str(source))
    with Image.open(source) as opened:
        assert opened.mode == "CMYK"
    made, _ = enlarge(source, ".png")
    with Image.open(made) as opened:
        assert opened.mode == "RGB"
        seen = np.asarray(opened).astype(int)
    assert np.abs(seen[4:28] - (180, 60, 50)).max() <= 12
    assert np.abs(seen[36:60] - (60, 120, 90)).max() <= 12


FRAME_DELAYS = [40, 250, 90]


def animation(path, size=(30, 22)):
    frames = []
    for number in range(3):
        frame = np.full((size[1], size[0], 3), (10, 60, 30), np.uint8)
        frame[:, number * 10 : number * 10 + 10] = (240, 210, 20)
        frames.append(Image.fromarray(frame))
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=FRAME_DELAYS, loop=2, lossless=True
    )


def frames_of(path):
    with Image.open(path) as opened:
        frames, delays = [], []
        for number in range(opened.n_frames):
            opened.seek(number)
            opened.load()
            frames.append(np.asarray(opened.convert("RGB")).astype(int))
            delays.append(opened.info["duration"])
        return frames, delays, opened.info.get("loop")


@pytest.mark.parametrize("first", [".gif", ".webp", ".png"])
@pytest.mark.parametrize("second", [".gif", ".webp", ".png"])
def test_an_animation_keeps_frames_delays_and_loop(tmp_path, enlarge, first, second):
    source = tmp_path / f"moving{first}"
    animation(source)
    made, _ = enlarge(source, second)
    before, _, loop_before = frames_of(source)
    after, delays, loop_after = frames_of(made)
    assert delays == FRAME_DELAYS
    if first == second:
        assert loop_after == loop_before
    for small, large in zip(before, after, strict=True):
        assert large.shape == (44, 60, 3)
        # Bars do not bleed into the frame below: each page is enlarged by itself.
        assert np.abs(large[::2, 4::20] - small[:, 2::10]).max() <= 24


def test_a_still_frame_twice_is_two_frames(tmp_path, enlarge):
    frame = Image.fromarray(photo_like(16, 16))
    frame.save(
        tmp_path / "s.webp", save_all=True, append_images=[frame, frame], duration=[10, 20, 30]
    )
    source = tmp_path / "s.webp"
    with ImageReader(source) as reader:
        pages = reader.header.pages
    made, _ = enlarge(source, ".gif")
    assert len(frames_of(made)[0]) == pages


@pytest.mark.parametrize("suffix", [".jpg", ".avif"])
def test_an_animation_is_never_cut_to_its_first_frame(tmp_path, magic, suffix):
    animation(tmp_path / "moving.gif")
    outcome = run_task(Task(tmp_path / "moving.gif", tmp_path / f"x{suffix}"), magic)
    assert outcome.status == "failed"
    assert "--format png or webp" in outcome.message
    assert not (tmp_path / f"x{suffix}").exists()


def rewrite(source, target):
    """Through reader and writer alone; the header that was read."""
    with ImageReader(source) as reader:
        write_strips(target, reader.header, reader.strips())
        return reader.header


def moves(mode="RGBA", number=4, size=(30, 22)):
    """Frames of which each covers and uncovers parts of the one before."""
    rng = np.random.default_rng(4)
    frames = []
    for step in range(number):
        frame = np.zeros((size[1], size[0], 4), np.uint8)
        frame[3 : 12 + step, 2 + 4 * step : 14 + 4 * step, :3] = rng.integers(0, 256, 3)
        frame[3 : 12 + step, 2 + 4 * step : 14 + 4 * step, 3] = (255, 90, 255, 160)[step % 4]
        frames.append(Image.fromarray(frame).convert(mode))
    return frames


def seen_by_ffmpeg(path):
    """The frames as FFmpeg puts them together, RGBA, and when each is shown, in milliseconds."""
    with av.open(str(path)) as clip:
        frames = list(clip.decode(video=0))
        times = [round(1000 * frame.pts * frame.time_base) for frame in frames]
        return [frame.to_ndarray(format="rgba").astype(int) for frame in frames], times


# Without alpha Pillow writes frames over each other alone.
@pytest.mark.parametrize(
    ("mode", "dispose"),
    [("RGBA", 0), ("RGBA", 1), ("RGBA", 2), ("LA", 1), ("LA", 2), ("RGB", 0), ("L", 0), ("P", 0)],
)
@pytest.mark.parametrize("blend", [0, 1])
@pytest.mark.parametrize("apart", [False, True])
def test_an_animated_png_is_shown_as_by_others(tmp_path, mode, dispose, blend, apart):
    """Also where the still picture for others is not part of the animation."""
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    frames = moves(mode)
    frames[0].save(
        source, save_all=True, append_images=frames[1:], disposal=dispose, blend=blend,
        duration=[40, 250, 90, 600], loop=3, default_image=apart,
    )  # fmt: skip
    header = rewrite(source, target)
    (before, times), (after, times_after) = seen_by_ffmpeg(source), seen_by_ffmpeg(target)
    assert times_after == times
    assert header.loop == 3
    assert header.pages == len(before) == len(after)
    for was, now in zip(before, after, strict=True):
        alpha = was[..., 3:] / 255
        assert np.abs(was[..., 3] - now[..., 3]).max() <= 1
        assert (np.abs(was - now) * alpha).max() <= 2


def test_an_animated_png_of_16_bits_keeps_them(tmp_path):
    ramp = (np.arange(64, dtype=np.uint16) * 1000).reshape(1, 64, 1).repeat(16, axis=0)
    pages = [ramp, ramp[:, ::-1], ramp // 3]
    header = Header(64, 16, 1, np.dtype(np.uint16), pages=3, delays=(10, 20, 30))
    write_strips(tmp_path / "a.png", header, iter([np.concatenate(pages)]))
    with ImageReader(tmp_path / "a.png") as reader:
        assert (reader.header.delays, reader.header.channels) == ((10, 20, 30), 1)
        for page, strip in zip(pages, reader.strips(), strict=True):
            assert (strip == page).all()


def test_a_damaged_animated_png_is_refused(tmp_path, magic):
    source = tmp_path / "in.png"
    moves()[0].save(source, save_all=True, append_images=moves()[1:], duration=40)
    good = source.read_bytes()
    second = good.index(b"fdAT")
    control = good.index(b"fcTL", good.index(b"IDAT"))
    spoiled = {
        "cut": good[: second + 20],
        "a bit": good[: second + 12] + bytes([good[second + 12] ^ 1]) + good[second + 13 :],
        "one frame less": good[: control - 4] + good[good.rindex(b"IEND") - 4 :],
        "another order": good[: control + 7] + b"\x09" + good[control + 8 :],
    }
    for content in spoiled.values():
        source.write_bytes(content)
        outcome = run_task(Task(source, tmp_path / "x.png"), magic)
        assert outcome.status == "failed"
        assert "damaged" in outcome.message
        assert "\n" not in outcome.message
        assert not (tmp_path / "x.png").exists()


def test_pages_of_a_tiff_are_all_enlarged_or_said_to_be_left(tmp_path, enlarge):
    pages = [Image.fromarray(photo_like(20, 24, seed=n)) for n in range(3)]
    pages[0].save(tmp_path / "doc.tif", save_all=True, append_images=pages[1:])
    made, said = enlarge(tmp_path / "doc.tif")
    with Image.open(made) as opened:
        assert opened.n_frames == 3
        assert opened.size == (48, 40)
    assert not said
    pages[0].save(tmp_path / "odd.tif", save_all=True, append_images=[pages[1].resize((9, 9))])
    _, said = enlarge(tmp_path / "odd.tif")
    assert "only the first" in said


@pytest.mark.parametrize("mode", ["1", "P", "L", "LA", "I;16"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_rare_modes_are_read_as_what_they_show(tmp_path, enlarge, mode, suffix):
    picture = Image.fromarray(photo_like(20, 30))
    if mode == "I;16":
        picture = Image.fromarray(photo_like(20, 30, 1)[:, :, 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        picture = picture.convert(mode)
    source = tmp_path / f"x{suffix}"
    picture.save(source)
    shown = picture.convert("RGBA" if mode == "LA" else "RGB") if mode != "I;16" else picture
    read = read_picture(source).pixels
    channels = {"1": 1, "P": 3, "L": 1, "LA": 2, "I;16": 1}[mode]
    assert read.shape == (20, 30, channels)
    assert read.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    assert (
        np.abs(read[:, :, 0].astype(int) - np.asarray(shown).reshape(20, 30, -1)[:, :, 0]).max()
        == 0
    )
    made, _ = enlarge(source)
    with Image.open(made) as opened:
        assert opened.size == (60, 40)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_float_tiff_keeps_its_range(tmp_path, enlarge, channels):
    light = np.linspace(-0.25, 12.5, 40 * 20 * channels).reshape(20, 40, channels)
    if channels == 4:
        light[:, :, 3] = 1.0
    write_picture(tmp_path / "hdr.tif", Picture(light.astype(np.float32)))
    made, _ = enlarge(tmp_path / "hdr.tif")
    large = pyvips.Image.new_from_file(str(made)).numpy().reshape(40, 80, channels)
    assert large.dtype == np.float32
    assert large.max() > 12.3
    assert large.min() < -0.2
    small = large.reshape(20, 2, 40, 2, channels).mean((1, 3))
    assert np.abs(small - light)[2:-2, 2:-2].max() < 0.2


def test_floats_are_not_squeezed_into_a_format_without_them(tmp_path, magic):
    write_picture(tmp_path / "hdr.tif", Picture(np.ones((8, 8, 3), np.float32)))
    outcome = run_task(Task(tmp_path / "hdr.tif", tmp_path / "x.png"), magic)
    assert "--format tiff" in outcome.message
    bad = np.ones((8, 8, 3), np.float32)
    bad[3, 3] = np.nan
    write_picture(tmp_path / "nan.tif", Picture(bad))
    with pytest.raises(ImageError, match="NaN"):
        read_picture(tmp_path / "nan.tif")


def test_what_a_format_cannot_keep_is_said(tmp_path, enlarge):
    deep = photo_like(12, 12, 4).astype(np.uint16) * 257
    write_picture(tmp_path / "deep.png", Picture(deep))
    assert enlarge(tmp_path / "deep.png", ".jpg")[1] == (
        "JPEG: 16 bits become 8; JPEG: alpha is laid on white"
    )
    assert not enlarge(tmp_path / "deep.png", ".tif")[1]


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def test_metadata_is_kept_and_the_thumbnail_dropped(tmp_path, enlarge):
    image = pyvips.Image.new_from_array(photo_like(40, 60)).copy(interpretation="srgb")
    image = image.copy(xres=11.811, yres=11.811)
    text, blob = pyvips.GValue.gstr_type, pyvips.GValue.blob_type
    image.set_type(text, "exif-ifd0-Artist", "A. Painter (A. Painter, ASCII)")
    image.set_type(text, "exif-ifd2-LensModel", "L 50 (L 50, ASCII)")
    thumbnail = pyvips.Image.black(8, 8).jpegsave_buffer()
    image.set_type(blob, "jpeg-thumbnail-data", thumbnail)
    image.set_type(blob, "xmp-data", XMP)
    image.set_type(
        blob, "iptc-data", b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x05\x1c\x02x\0\0"
    )
    source = tmp_path / "a.jpg"
    image.write_to_file(str(source))
    assert thumbnail in source.read_bytes()
    for suffix in (".jpg", ".png", ".webp", ".tif", ".avif"):
        made, said = enlarge(source, suffix)
        back = pyvips.Image.new_from_file(str(made))
        assert thumbnail not in made.read_bytes()
        assert b'tiff:Orientation="1"' in back.get("xmp-data"), suffix
        if suffix == ".tif":
            assert "EXIF is dropped" in said
        else:
            assert "A. Painter" in back.get("exif-ifd0-Artist")
            assert "L 50" in back.get("exif-ifd2-LensModel")
        if suffix in (".jpg", ".tif"):
            assert back.get_typeof("iptc-data"), suffix
        if suffix in (".jpg", ".png", ".tif"):
            # Twice the pixels on the same paper.
            assert back.xres == pytest.approx(2 * 11.811, rel=0.01)


def test_dpi_is_seen_by_others(tmp_path, enlarge):
    Image.fromarray(photo_like(12, 12)).save(tmp_path / "a.png", dpi=(300, 300))
    for suffix in (".png", ".jpg", ".tif"):
        with Image.open(enlarge(tmp_path / "a.png", suffix)[0]) as opened:
            assert opened.info["dpi"] == pytest.approx((600, 600), rel=0.01)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_strips_make_the_same_file_as_the_whole(tmp_path, channels, dtype):
    pixels = (photo_like(50, 31, channels) / 255.0).astype(np.float32)
    if dtype != "float32":
        pixels = (pixels * np.iinfo(dtype).max).astype(dtype)
    header = Header(31, 50, channels, pixels.dtype)
    write_strips(tmp_path / "s.tif", header, (pixels[y : y + 7] for y in range(0, 50, 7)))
    write_strips(tmp_path / "w.tif", header, [pixels])
    assert (tmp_path / "s.tif").read_bytes() == (tmp_path / "w.tif").read_bytes()
    np.testing.assert_array_equal(read_picture(tmp_path / "s.tif").pixels, pixels)


def test_streamed_equals_at_once(tmp_path, monkeypatch):
    """Small limits send small files down the way of those larger than memory."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo_like(90, 70)).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(photo_like(90, 70, 4)).save(tmp_path / "b.png")
    animation(tmp_path / "c.gif")
    upscaler = Upscaler("magic", 2, tile=16)
    names = ("a.jpg", "b.png", "c.gif")
    for name in names:
        run_task(Task(tmp_path / name, tmp_path / "once" / name), upscaler)
    monkeypatch.setattr("paragonsr2.images.reading.AT_ONCE", 100)
    monkeypatch.setattr("paragonsr2.images.reading.STRIP", 1000)
    monkeypatch.setattr(upscaler_module, "BAND", 1000)
    for name in names:
        outcome = run_task(Task(tmp_path / name, tmp_path / "strips" / name), upscaler)
        assert outcome.status == "done", outcome.message
        once, strips = (tmp_path / folder / name for folder in ("once", "strips"))
        assert once.read_bytes() == strips.read_bytes()


def test_a_picture_too_long_for_its_format_is_refused_before_the_work(tmp_path, magic):
    write_picture(tmp_path / "long.png", Picture(np.zeros((8200, 1, 3), np.uint8)))
    outcome = run_task(Task(tmp_path / "long.png", tmp_path / "long.webp"), magic)
    assert "16383 a side; give --format png" in outcome.message


def test_frames_count_towards_the_limit(tmp_path):
    animation(tmp_path / "a.gif")
    with pytest.raises(ImageTooLargeError):
        ImageReader(tmp_path / "a.gif", max_pixels=3 * 30 * 22 - 1)
    ImageReader(tmp_path / "a.gif", max_pixels=3 * 30 * 22)


def test_strange_samples_are_refused_and_long_ones_shortened(tmp_path):
    signed = pyvips.Image.new_from_array(np.arange(-8, 8, dtype=np.int16).reshape(4, 4))
    signed.write_to_file(str(tmp_path / "s.tif"))
    with pytest.raises(ImageError, match="short samples"):
        read_picture(tmp_path / "s.tif")
    five = pyvips.Image.new_from_array(np.zeros((4, 4, 5), np.uint8))
    five.write_to_file(str(tmp_path / "f.tif"))
    with pytest.raises(ImageError, match="5 bands"):
        read_picture(tmp_path / "f.tif")
    long = pyvips.Image.new_from_array(np.full((4, 4), 0xABCD1234, np.uint32))
    long.write_to_file(str(tmp_path / "l.tif"))
    assert (read_picture(tmp_path / "l.tif").pixels == 0xABCD).all()


def test_other_loaders_are_out_of_reach(tmp_path):
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    (tmp_path / "a.png").write_text(svg)
    (tmp_path / "b.png").write_text("1 2\n3 4\n")
    pyvips.Image.black(4, 4).write_to_file(str(tmp_path / "c.v"))
    (tmp_path / "c.v").rename(tmp_path / "c.png")
    for name in ("a.png", "b.png", "c.png"):
        with pytest.raises(ImageError):
            read_picture(tmp_path / name)


def test_a_file_is_what_it_is_whatever_it_is_called(tmp_path, enlarge):
    Image.fromarray(photo_like(16, 16)).save(tmp_path / "x.jpg", format="PNG")
    with Image.open(enlarge(tmp_path / "x.jpg")[0]) as opened:
        assert opened.format == "JPEG"


def test_every_written_format_is_named_in_the_command():
    assert set(WRITABLE) <= set(get_args(ImageFormatName))


@pytest.mark.parametrize("isa_l", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 300, 1), (301, 17, 2), (640, 480, 4)])
def test_a_png_is_read_by_others_as_it_was_written(tmp_path, monkeypatch, isa_l, dtype, shape):
    if not isa_l:
        monkeypatch.setattr(png, "isal_zlib", None)
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    pixels[: shape[0] // 2] //= 64  # noise and something to compress
    path = tmp_path / "a.png"
    write_picture(path, Picture(pixels, resolution=(3.0, 3.0)))
    read = pyvips.Image.new_from_file(str(path), fail_on="warning")
    np.testing.assert_array_equal(read.numpy().reshape(shape), pixels)
    assert read.xres == pytest.approx(3.0, rel=1e-4)
    with Image.open(path) as opened:
        opened.verify()


def flat_pictures():
    """What programs show: nothing, a window, text on paper, in grey and in colour, with alpha."""
    paper = np.full((480, 640, 3), (250, 248, 240), np.uint8)
    yield paper
    window = Image.fromarray(paper)
    pen = ImageDraw.Draw(window)
    pen.rectangle((60, 40, 500, 400), fill=(255, 255, 255), outline=(90, 90, 90))
    for y in range(60, 380, 12):
        pen.text((70, y), "Lorem ipsum dolor sit amet, consectetur adipiscing elit", fill=(9, 9, 9))
    yield np.asarray(window)
    yield np.asarray(window.convert("L"))[..., None]
    yield np.asarray(window.convert("RGBA"))


@pytest.mark.parametrize("pixels", list(flat_pictures()), ids=lambda p: f"{p.shape[2]}x{p.dtype}")
@pytest.mark.parametrize("model", ["magic", "realtime"])
def test_a_flat_png_is_as_small_as_by_a_thorough_encoder(tmp_path, pixels, model):
    write_picture(tmp_path / "in.png", Picture(pixels))
    outcome = run_task(Task(tmp_path / "in.png", tmp_path / "out.png"), Upscaler(model, 2))
    assert outcome.status == "done", outcome.message
    image = pyvips.Image.new_from_file(str(tmp_path / "out.png"))
    thorough = image.pngsave_buffer(compression=6, filter="all", keep="none")
    assert (tmp_path / "out.png").stat().st_size <= 1.15 * len(thorough)


def test_the_png_of_a_photo_is_the_same_from_strips_and_in_one_piece(tmp_path, data):
    photo = read_picture(sorted((data / "val").glob("*.png"))[0]).pixels[:200, :300]
    header = Header(300, 200, 3, photo.dtype)
    write_strips(tmp_path / "s.png", header, (photo[y : y + 50] for y in range(0, 200, 50)))
    write_strips(tmp_path / "w.png", header, [photo])
    assert (tmp_path / "s.png").read_bytes() == (tmp_path / "w.png").read_bytes()


def test_a_file_that_takes_no_more_says_so():
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() + len(data) > 20_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    image = pyvips.Image.new_from_array(noise)
    with pytest.raises(OSError, match="No space left"):
        png.save_png(image, Full())
