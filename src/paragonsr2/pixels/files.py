"""Image files in and out through libvips, with what they carry: depth, alpha, profile, EXIF."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from paragonsr2.errors import EnvironmentProblem, ImageError, ImageTooLargeError, OutputError
from paragonsr2.files import atomic_path
from paragonsr2.pixels.arrays import Pixels, full_scale

# libvips prints its warnings to stderr unless told before it loads.
os.environ.setdefault("VIPS_WARNING", "0")
try:
    import pyvips
except (ImportError, OSError) as error:
    raise EnvironmentProblem(
        f"libvips does not load ({error}); reinstall: pip install pyvips pyvips-binary"
    ) from error

#: Input pixels above which a file is refused unless told otherwise: a few bytes can claim more.
MAX_PIXELS = 250_000_000

#: Pixels of a JPEG above which memory is worth more than a somewhat smaller file.
HUGE_JPEG = 50_000_000

#: File suffixes that are read.
READABLE = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".avif"})

#: Formats that are written, their suffix, and the options of the libvips saver.
FORMATS: dict[str, str] = {
    "png": ".png",
    "jpg": ".jpg",
    "webp": ".webp",
    "tiff": ".tif",
    "avif": ".avif",
}
_FORMAT_OF_SUFFIX = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".avif": "avif",
}
_CARRIED = ("exif-", "xmp-data", "iptc-data", "icc-profile-data")
_KIND = {"uchar": np.uint8, "ushort": np.uint16}

# Bound what a hostile file can reach: no loaders outside the fuzzed ones, no cached results.
pyvips.block_untrusted_set(True)
pyvips.cache_set_max(0)


@dataclass(frozen=True)
class Picture:
    """A decoded image and what its file carried.

    Attributes:
        pixels: ``(H, W, C)`` uint8 or uint16, upright; C = 1 grey, 2 grey and alpha, 3 RGB,
            4 RGB and alpha; straight alpha.
        carried: libvips metadata fields to write again (EXIF, XMP, IPTC, ICC profile), as
            (GType, value) by name.
        resolution: pixels per millimetre, horizontally and vertically.
    """

    pixels: Pixels
    carried: Mapping[str, tuple[int, Any]] = field(default_factory=dict[str, tuple[int, Any]])
    resolution: tuple[float, float] = (1.0, 1.0)


def format_of(path: Path) -> str:
    """The format that the suffix of ``path`` names.

    Raises:
        OutputError: the suffix is none that is written.
    """
    try:
        return _FORMAT_OF_SUFFIX[path.suffix.lower()]
    except KeyError:
        known = ", ".join(sorted(_FORMAT_OF_SUFFIX))
        raise OutputError(f"cannot write '{path.suffix}' files; take one of {known}") from None


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an image file, upright (EXIF orientation applied).

    CMYK is converted to sRGB through its profile.

    Args:
        path: any file in one of the :data:`READABLE` formats.
        max_pixels: refuse an image that claims more, before decoding it.

    Raises:
        ImageError: no image, damaged or truncated, or with unusual bands.
        ImageTooLargeError: more than ``max_pixels``.
    """
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty")
        image = pyvips.Image.new_from_file(str(path), access="sequential", fail_on="truncated")  # pyright: ignore[reportUnknownMemberType]
        image = cast(Any, image)
        count = image.width * image.height
        if count > max_pixels:
            raise ImageTooLargeError(
                f"{path} has {count / 1e6:.0f} megapixels, the limit is "
                f"{max_pixels / 1e6:.0f}; lift it with --max-megapixels"
            )
        return _decode(image, path)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    except pyvips.Error as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"{path} is no readable image, or damaged: {reason[:160]}") from error


def _decode(image: Any, path: Path) -> Picture:
    if image.get_typeof("orientation") and image.get("orientation") != 1:
        image = image.copy_memory().autorot()
    if image.interpretation == "cmyk":
        image = image.icc_transform("srgb", embedded=True, intent="relative")
    if image.format not in _KIND:
        image = image.colourspace("rgb16" if image.bands > 2 else "grey16")
    if image.bands not in (1, 2, 3, 4):
        raise ImageError(f"{path} has {image.bands} bands; grey or RGB, with or without alpha")
    carried = {
        name: (image.get_typeof(name), image.get(name))
        for name in cast(list[str], image.get_fields())
        if name.startswith(_CARRIED)
    }
    buffer = image.write_to_memory()
    flat: Pixels = np.frombuffer(buffer, dtype=_KIND[image.format])
    pixels = flat.reshape(image.height, image.width, image.bands)
    return Picture(pixels, carried, (image.xres, image.yres))


def write_picture(path: Path, picture: Picture, *, quality: int = 95) -> None:
    """Encode ``picture`` in the format of the suffix of ``path``, atomically.

    16-bit pixels stay 16-bit in PNG and TIFF, become 12-bit in AVIF and 8-bit in JPEG and
    WebP. JPEG has no alpha: it is laid on white.

    Args:
        path: where to.
        picture: what.
        quality: 1..100, of the lossy formats.

    Raises:
        OutputError: the suffix is unknown or the file cannot be written.
    """
    kind = format_of(path)
    image = _to_vips(picture)
    alpha = image.bands in (2, 4)
    if kind == "jpg" and alpha:
        image = image.flatten(background=full_scale(picture.pixels))
    if kind in ("jpg", "webp") and image.format == "ushort":
        image = image.colourspace("srgb" if image.bands > 2 else "b-w")
    # Optimised Huffman tables need all coefficients in memory: 2 bytes for each sample.
    huge = image.width * image.height > HUGE_JPEG
    options: dict[str, dict[str, Any]] = {
        "png": {"compression": 6},
        "jpg": {"Q": quality, "subsample_mode": "off", "optimize_coding": not huge},
        "webp": {"Q": quality, "smart_subsample": True},
        "tiff": {"compression": "deflate", "predictor": "horizontal"},
        "avif": {"Q": quality, "compression": "av1", "effort": 4, "subsample_mode": "off"},
    }
    extra = options[kind]
    if kind == "avif":
        extra["bitdepth"] = 12 if image.format == "ushort" else 8
    try:
        with atomic_path(path) as part:
            image.write_to_file(str(part), **extra)
    except pyvips.Error as error:
        reason = " ".join(str(error).split())
        raise OutputError(f"cannot write {path}: {reason[:160]}") from error


def _to_vips(picture: Picture) -> Any:
    pixels = np.ascontiguousarray(picture.pixels)
    height, width, bands = pixels.shape
    deep = pixels.dtype == np.uint16
    image = cast(Any, pyvips.Image).new_from_memory(
        pixels.data, width, height, bands, "ushort" if deep else "uchar"
    )
    colour = ("rgb16" if deep else "srgb") if bands > 2 else ("grey16" if deep else "b-w")
    xres, yres = picture.resolution
    image = image.copy(interpretation=colour, xres=xres, yres=yres)
    for name, (kind, value) in picture.carried.items():
        image.set_type(kind, name, value)
    # The pixels are upright, whatever the EXIF block that came with them says.
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    return image
