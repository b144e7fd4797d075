"""Reading image files through libvips, with what they carry: depth, alpha, profile, EXIF.

A file is read in strips of whole rows, page after page, so that pictures and animations may be
larger than memory.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import pyvips

from paragonsr2.arrays.pixels import Pixels, full_scale
from paragonsr2.errors import ImageError, ImageTooLargeError
from paragonsr2.images.apng import Animation, count_frames
from paragonsr2.images.damage import broken_image
from paragonsr2.images.exif import is_kept, without_pixel_facts
from paragonsr2.images.formats import complaint
from paragonsr2.images.header import Header, Picture
from paragonsr2.images.loading import FailOn, open_image, text_errors

#: Default limit of the input pixels, all pages together: a file of a few bytes can claim any
#: number. The largest single exposures of today's cameras stay below.
MAX_PIXELS = 250_000_000

#: A page of up to this many decoded bytes is decoded at once.
AT_ONCE = 1 << 27

#: A larger page is decoded in strips of about this many bytes.
STRIP = 1 << 24

_CARRIED = ("exif-", "xmp-data", "iptc-data", "icc-profile-data")

_KIND: dict[str, npt.DTypeLike] = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}


_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:>|\s*=\s*[\"']))[2-8]")

_WARNED = "decoded with warnings"

#: Value of the orientation tag of a picture that need not be turned.
_UPRIGHT = 1


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode the first page of an image file; see :class:`ImageReader`.

    Raises:
        ImageError: the file is not an image, is damaged, or has unusual samples.
        ImageTooLargeError: it has more than ``max_pixels``.
    """
    with ImageReader(path, max_pixels=max_pixels, first_page=True) as reader:
        strips = list(reader.strips())
        pixels = strips[0] if len(strips) == 1 else np.concatenate(strips)
        return Picture(pixels, reader.header.carried, reader.header.resolution)


class ImageReader:
    """An open image file.

    The header is read and checked before any pixel is decoded. Every page comes upright. CMYK
    becomes sRGB through its profile, Lab becomes sRGB; palettes and single bits become 8 bits;
    32-bit integers become 16 bits; floats stay floats.

    What libvips only warns of may be damage, such as a broken scan of a JPEG, or a trifle. The
    file is then decoded all the same, and ``warnings`` says so.

    Args:
        path: a file in one of the readable formats, whatever its suffix.
        max_pixels: refuse a file that claims more, all pages together.
        first_page: read only the first page of an animation or document.
        strict: refuse a file that decodes with warnings only.

    Attributes:
        header: what the file claims.
        warnings: of the decoder, complete when all strips have been read.

    Raises:
        ImageError: the file is not an image, is damaged, or has unusual samples.
        ImageTooLargeError: it has more than ``max_pixels``.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_pixels: int = MAX_PIXELS,
        first_page: bool = False,
        strict: bool = False,
    ) -> None:
        self.path = path
        self.warnings: tuple[str, ...] = ()
        self._max_pixels, self._first_page, self._strict = max_pixels, first_page, strict
        with _reading(path):
            if path.stat().st_size == 0:
                raise ImageError(f"{path} is empty")
            try:
                with text_errors():
                    self._open("warning")
            except pyvips.Error as warning:
                self._open_again(warning)
            if not first_page and not self.warnings:
                self._look_for_damage()

    def _look_for_damage(self) -> None:
        """Find what libvips passes over."""
        head = self.header
        size = head.width * head.height * head.pages * head.channels * head.dtype.itemsize
        damage = broken_image(self.path, size)
        if damage and self._strict:
            raise ImageError(f"{self.path} is damaged: {damage}")
        if damage:
            self.warnings = (f"{_WARNED}: {damage}",)

    def _open_again(self, warning: pyvips.Error) -> None:
        """Open the file past what libvips only warns of; raises what is more than that."""
        if self._strict or self.warnings:
            raise warning
        with text_errors():
            self._open("error")
        self.warnings = (f"{_WARNED}: {complaint(warning)}",)

    def _open(self, fail_on: FailOn) -> None:
        path, max_pixels, first_page = self.path, self._max_pixels, self._first_page
        pages, notes = _measure(path, max_pixels, fail_on, first_page=first_page)
        frames = 1 if first_page else count_frames(path)
        self._image: Any = _decode(path, pages, fail_on)
        self._at_once = True
        self._animation: Animation | None = None
        if frames == 1:
            self._open_image(pages, notes, fail_on)
        else:
            _check_size(path, self._image.width * self._image.height * frames, max_pixels)
            self._open_animation(Animation(path))
        self._region: Any = pyvips.Region.new(self._image)

    def _open_image(self, pages: int, notes: tuple[str, ...], fail_on: FailOn) -> None:
        image = self._image
        size = image.width * image.height * image.bands * _dtype(image).itemsize
        self._at_once = size <= AT_ONCE * pages
        if size <= AT_ONCE:
            self._image = image = image.copy_memory()
        # An image that is not in memory can be read only once.
        twice = size > AT_ONCE and image.bands % 2 == 0
        alpha = _decode(self.path, pages, fail_on) if twice else image
        self.header = _header(image, pages, notes, opaque=_opaque(alpha))

    def _open_animation(self, animation: Animation) -> None:
        """Open an animated PNG, of which libvips reads the metadata and the first picture."""
        first = _header(self._image, 1, (), opaque=False)
        if (animation.width, animation.height) != (first.width, first.height):
            raise ImageError(
                f"{self.path} is an animated PNG with an orientation tag; rotate it first"
            )
        white = full_scale(first.dtype)
        opaque = all(frame[..., -1].min() == white for frame in animation.frames())
        self._animation = animation
        self.header = replace(
            first,
            channels=first.channels + (first.channels % 2 and not opaque),
            opaque=opaque and first.channels % 2 == 0,
            pages=len(animation.delays),
            delays=animation.delays,
            loop=animation.loop,
        )

    def __enter__(self) -> Self:
        """Return the reader, which is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._image = self._region = None

    def strips(self) -> Iterator[Pixels]:
        """Decode the pixels, top to bottom, page after page; can be called once.

        Yields:
            ``(rows, W, C)`` of one page.

        Raises:
            ImageError: the pixels are damaged, or contain NaN or infinity.
        """
        head = self.header
        if self._animation is not None:
            with _reading(self.path):
                for frame in self._animation.frames():
                    yield np.ascontiguousarray(frame[..., : head.channels])
            return
        row_bytes = head.width * head.channels * head.dtype.itemsize
        step = head.height if self._at_once else max(1, STRIP // row_bytes)
        with _reading(self.path):
            for top in range(0, head.height * head.pages, head.height):
                for first in range(0, head.height, step):
                    rows = min(step, head.height - first)
                    strip: Pixels = np.frombuffer(self._rows(top + first, rows), head.dtype)
                    if head.dtype == np.float32 and not np.isfinite(strip).all():
                        raise ImageError(
                            f"{self.path} contains NaN or infinity; repair those pixels"
                        )
                    yield strip.reshape(rows, head.width, head.channels)

    def _rows(self, top: int, count: int) -> bytes:
        try:
            with text_errors():
                return self._region.fetch(0, top, self.header.width, count)
        except pyvips.Error as warning:
            self._open_again(warning)
            return self._region.fetch(0, top, self.header.width, count)


@contextmanager
def _reading(path: Path) -> Generator[None]:
    """Turn the errors of the system and of libvips into an :class:`ImageError` of one line."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    except pyvips.Error as error:
        if "HEVC" in str(error):
            raise ImageError(
                f"{path} is HEIC, which this libvips cannot decode; replace pyvips-binary by "
                "your system's libvips with libde265"
            ) from error
        raise ImageError(
            f"{path} cannot be decoded, it may be damaged: {complaint(error)}"
        ) from error


def _measure(
    path: Path, max_pixels: int, fail_on: FailOn, *, first_page: bool
) -> tuple[int, tuple[str, ...]]:
    """Check the size; the number of pages to read, and notes on what is left out."""
    image = open_image(path, fail_on=fail_on)
    pages = image.get("n-pages") if image.get_typeof("n-pages") and not first_page else 1
    _check_size(path, image.width * image.height * pages, max_pixels)
    if pages == 1:
        return 1, ()
    if image.get("vips-loader").startswith("heif"):
        return 1, (f"holds {pages} pictures; only the main one is enlarged",)
    try:
        whole = open_image(path, fail_on=fail_on, n=-1)
    except pyvips.Error as error:
        if "differs" not in str(error):
            raise
        return 1, (
            f"has {pages} pages of several sizes or orientations; only the first is enlarged",
        )
    _check_size(path, whole.width * whole.height, max_pixels)
    return pages, ()


def _decode(path: Path, pages: int, fail_on: FailOn) -> Any:
    """The pages below each other, upright and plain; pixels are decoded when they are needed."""
    options: dict[str, Any] = {"n": -1} if pages > 1 else {}
    image = open_image(path, fail_on=fail_on, **options)
    if image.get_typeof("orientation") and image.get("orientation") != _UPRIGHT:
        # Turning needs the rows in another order; libvips keeps large images in a temporary file.
        image = open_image(path, access="random", fail_on=fail_on, **options)
        height = image.height // pages
        tops = range(0, image.height, height)
        turned = [image.crop(0, top, image.width, height).autorot() for top in tops]
        # All pages of a file have the same orientation, or libvips would not read them together.
        image = cast(Any, pyvips.Image).arrayjoin(turned, across=1)
    return _plain(image, path)


def _check_size(path: Path, count: int, max_pixels: int) -> None:
    if count > max_pixels:
        raise ImageTooLargeError(
            f"{path} has {count / 1e6:.0f} megapixels and the limit is "
            f"{max_pixels / 1e6:.0f}; raise it with --max-megapixels"
        )


def _plain(image: Any, path: Path) -> Any:
    """Convert to grey or RGB, with or without alpha, in one of the three sample types."""
    deep = image.format == "ushort"
    if image.interpretation == "cmyk":
        depth = 16 if deep else 8
        image = image.icc_transform("srgb", embedded=True, intent="relative", depth=depth)
    elif image.interpretation in ("lab", "labs", "labq", "lch", "xyz", "hsv", "cmc", "yxy"):
        image = image.colourspace("srgb" if image.format == "uchar" else "rgb16")
    elif image.format == "uint":
        image = (image >> 16).cast("ushort")
        image = image.copy(interpretation="rgb16" if image.bands > 2 else "grey16")
    if image.format not in _KIND:
        raise ImageError(
            f"{path} has {image.format} samples; convert it to unsigned integers or 32-bit floats"
        )
    if image.bands not in (1, 2, 3, 4) or image.hasalpha() == bool(image.bands % 2):
        raise ImageError(
            f"{path} has {image.bands} bands; convert it to grey or RGB, with or without alpha"
        )
    return image


def _dtype(image: Any) -> np.dtype[Any]:
    return np.dtype(_KIND[image.format])


def _opaque(image: Any) -> bool:
    if image.bands % 2:
        return False
    return image[-1].min() == full_scale(_dtype(image))


def _header(image: Any, pages: int, notes: tuple[str, ...], *, opaque: bool) -> Header:
    carried = {
        name: (image.get_typeof(name), image.get(name))
        for name in cast(list[str], image.get_fields())
        if name.startswith(_CARRIED) and is_kept(name)
    }
    if "exif-data" in carried:
        kind, block = carried["exif-data"]
        carried["exif-data"] = (kind, without_pixel_facts(block))
    if "xmp-data" in carried:
        kind, packet = carried["xmp-data"]
        carried["xmp-data"] = (kind, _XMP_ORIENTATION.sub(rb"\g<1>1", packet))
    delays = tuple(image.get("delay")) if pages > 1 and image.get_typeof("delay") else ()
    return Header(
        width=image.width,
        height=image.height // pages,
        channels=image.bands,
        dtype=_dtype(image),
        carried=carried,
        resolution=(image.xres, image.yres),
        pages=pages,
        delays=delays,
        loop=image.get("loop") if pages > 1 and image.get_typeof("loop") else 0,
        opaque=opaque,
        notes=notes,
    )
