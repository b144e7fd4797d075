"""Small valid files of every image format that is read: what the fuzzer starts from."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyvips
from PIL import Image

from paragonsr2.images.formats import FORMATS


def _picture(bands: int, kind: str = "uint8", side: int = 40) -> pyvips.Image:
    y, x = np.mgrid[0:side, 0 : side + 9]
    planes = [0.5 + 0.5 * np.sin(x / (3 + b)) * np.cos(y / (5 + b)) for b in range(bands)]
    pixels = np.stack(planes, axis=-1).astype(np.float32)
    if kind != "float32":
        pixels = (pixels * np.iinfo(kind).max).astype(kind)
    colour = {"uint8": ("b-w", "srgb"), "uint16": ("grey16", "rgb16"), "float32": ("b-w", "scrgb")}
    return pyvips.Image.new_from_array(pixels).copy(interpretation=colour[kind][bands > 2])


def _with_metadata(image: pyvips.Image) -> pyvips.Image:
    image = image.icc_transform("p3", input_profile="srgb")
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Artist", "A (A, ASCII)")
    image.set_type(pyvips.GValue.blob_type, "xmp-data", b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    return image


def _animation(kind: str) -> bytes:
    rng = np.random.default_rng(1)
    frames = [Image.fromarray(rng.integers(0, 255, (24, 30, 3), np.uint8)) for _ in range(4)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=40, loop=0)
    return out.getvalue()


def _pillow(kind: str, mode: str) -> bytes:
    rng = np.random.default_rng(2)
    out = io.BytesIO()
    image = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).convert(mode)
    image.save(out, kind)
    return out.getvalue()


def make_corpus() -> dict[str, bytes]:
    """Valid files by name; the suffix is the format."""
    cases: dict[str, bytes] = {}

    def add(name: str, image: pyvips.Image, **options: object) -> None:
        cases[name] = image.write_to_buffer(Path(name).suffix, **options)

    rich = _with_metadata(_picture(3))
    for bands, name in enumerate(("grey", "grey_alpha", "rgb", "rgba"), 1):
        add(f"{name}.png", _picture(bands))
        add(f"{name}.tif", _picture(bands), compression="lzw")
        add(f"{name}_deep.png", _picture(bands, "uint16"))
    add("metadata.png", rich)
    add("interlaced.png", _picture(3), interlace=True)
    add("palette.png", _picture(3), palette=True)
    add("bit.png", _picture(1), bitdepth=1)
    add("metadata.jpg", rich)
    add("grey.jpg", _picture(1))
    add("progressive.jpg", _picture(3), interlace=True)
    add("cmyk.jpg", _picture(3).icc_transform("cmyk", input_profile="srgb"))
    add("metadata.webp", rich)
    add("rgba.webp", _picture(4))
    add("lossless.webp", _picture(4), lossless=True)
    add("metadata.tif", rich)
    add("float.tif", _picture(3, "float32"), compression="deflate", predictor="float")
    add("tiled.tif", _picture(3), tile=True, tile_width=16, tile_height=16, compression="jpeg")
    add("big.tif", _picture(3), bigtiff=True)
    add("cmyk.tif", _picture(3).icc_transform("cmyk", input_profile="srgb"))
    add("still.gif", _picture(4))
    if "avif" in FORMATS:
        add("rgb.avif", _picture(3), effort=0)
        add("rgba_deep.avif", _picture(4, "uint16"), effort=0, bitdepth=12)
        add("metadata.avif", rich, effort=0)
    cases["moving.gif"], cases["moving.webp"] = _animation("gif"), _animation("webp")
    cases["bit.tif"], cases["palette.tif"] = _pillow("tiff", "1"), _pillow("tiff", "P")
    cases["moving.png"] = _animation("png")
    return cases
