"""Image files in and out through libvips, with what they carry: depth, alpha, profile, EXIF.

A file is read and written in strips of whole rows, page after page, so that neither a picture
larger than memory nor a long animation has to be in memory at once.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import pyvips

from paragonsr2.errors import ImageError, ImageTooLargeError, OutputError
from paragonsr2.files import atomic_path
from paragonsr2.pixels.apng import Animation, count_frames, write_animation
from paragonsr2.pixels.arrays import Pixels, full_scale
from paragonsr2.pixels.deflate import save_png
from paragonsr2.pixels.exif import is_kept, tells_something, without_pixel_facts
from paragonsr2.pixels.formats import WRITABLE, ImageFormat, format_of
from paragonsr2.pixels.rowstream import RowStream

#: Input pixels, all pages together, above which a file is refused unless told otherwise: a few
#: bytes can claim more. Above the largest single exposures of today's cameras.
MAX_PIXELS = 250_000_000

#: Bytes of a decoded page up to which it is decoded at once.
AT_ONCE = 1 << 27

#: Bytes of a strip of a page that is not.
STRIP = 1 << 24

#: Bytes of pixels above which a TIFF is written with 64-bit offsets.
HUGE_TIFF = 4_000_000_000

_CARRIED = ("exif-", "xmp-data", "iptc-data", "icc-profile-data")
_KIND: dict[str, npt.DTypeLike] = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}
_FORMAT = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:>|\s*=\s*[\"']))[2-8]")


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels.

    Attributes:
        width, height: of one page, upright.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; alpha is straight.
        dtype: uint8, uint16 or float32.
        carried: libvips metadata fields to write again (EXIF, XMP, IPTC, ICC profile), as
            (GType, value) by name.
        resolution: pixels per millimetre, horizontally and vertically.
        pages: of an animation or document; 1 otherwise.
        delays: milliseconds that each page is shown; empty where there are none.
        loop: how often an animation is played, 0 for ever.
        opaque: there is alpha, and it is full everywhere.
        notes: what is left behind, for people.
    """

    width: int
    height: int
    channels: int
    dtype: np.dtype[Any]
    carried: Mapping[str, tuple[int, Any]] = field(default_factory=dict[str, tuple[int, Any]])
    resolution: tuple[float, float] = (1.0, 1.0)
    pages: int = 1
    delays: tuple[int, ...] = ()
    loop: int = 0
    opaque: bool = False
    notes: tuple[str, ...] = ()

    def enlarged(self, scale: int) -> Header:
        """The header of the same picture with ``scale`` times the pixels a side."""
        xres, yres = self.resolution
        return replace(
            self,
            width=self.width * scale,
            height=self.height * scale,
            resolution=(xres * scale, yres * scale),
        )


@dataclass(frozen=True)
class Picture:
    """A decoded image and what its file carried.

    Attributes:
        pixels: ``(H, W, C)`` uint8, uint16 or float32, upright; C = 1 grey, 2 grey and alpha,
            3 RGB, 4 RGB and alpha; straight alpha.
        carried: as in :class:`Header`.
        resolution: as in :class:`Header`.
    """

    pixels: Pixels
    carried: Mapping[str, tuple[int, Any]] = field(default_factory=dict[str, tuple[int, Any]])
    resolution: tuple[float, float] = (1.0, 1.0)


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode the first page of an image file; see :class:`ImageReader`.

    Raises:
        ImageError: no image, damaged or truncated, or with unusual samples.
        ImageTooLargeError: more than ``max_pixels``.
    """
    with ImageReader(path, max_pixels=max_pixels, first_page=True) as reader:
        strips = list(reader.strips())
        pixels = strips[0] if len(strips) == 1 else np.concatenate(strips)
        return Picture(pixels, reader.header.carried, reader.header.resolution)


class ImageReader:
    """An open image file.

    The header is read, and what is claimed there is checked before any pixel is decoded.
    Pixels come upright. CMYK becomes sRGB through its profile, Lab becomes sRGB; palettes and
    single bits become 8 bits; 32-bit integers become 16 bits; floats stay what they are.

    Args:
        path: any file in one of the formats that are read, whatever its suffix.
        max_pixels: refuse a file that claims more, all pages together.
        first_page: leave the other pages of an animation or document alone.

    Attributes:
        header: what the file claims.

    Raises:
        ImageError: no image, damaged, or with unusual samples.
        ImageTooLargeError: more than ``max_pixels``.
    """

    def __init__(
        self, path: Path, *, max_pixels: int = MAX_PIXELS, first_page: bool = False
    ) -> None:
        self.path = path
        with _reading(path):
            if path.stat().st_size == 0:
                raise ImageError(f"{path} is empty")
            pages, notes = _measure(path, max_pixels, first_page=first_page)
            frames = 1 if first_page else count_frames(path)
            self._image: Any = _decode(path, pages)
            self._at_once = True
            self._animation: Animation | None = None
            if frames == 1:
                self._open_image(pages, notes)
            else:
                _check_size(path, self._image.width * self._image.height * frames, max_pixels)
                self._open_animation(Animation(path))

    def _open_image(self, pages: int, notes: tuple[str, ...]) -> None:
        image = self._image
        size = image.width * image.height * image.bands * _dtype(image).itemsize
        self._at_once = size <= AT_ONCE * pages
        if size <= AT_ONCE:
            self._image = image = image.copy_memory()
        # What is not kept in memory can be read only once.
        alpha = image if size <= AT_ONCE or image.bands % 2 else _decode(self.path, pages)
        self.header = _header(image, pages, notes, opaque=_opaque(alpha))

    def _open_animation(self, animation: Animation) -> None:
        """An animated PNG; libvips has read what belongs to the whole file, and one picture."""
        first = _header(self._image, 1, (), opaque=False)
        if (animation.width, animation.height) != (first.width, first.height):
            raise ImageError(f"{self.path} is an animated PNG to be turned; turn it first")
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
        """Nothing to do: it is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file."""
        self._image = None

    def strips(self) -> Iterator[Pixels]:
        """The pixels, ``(rows, W, C)`` at a time, top to bottom, page after page; only once.

        No strip holds rows of two pages.

        Raises:
            ImageError: the file is damaged further down, or holds NaN or infinity.
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
            region = pyvips.Region.new(self._image)
            for top in range(0, head.height * head.pages, head.height):
                for first in range(0, head.height, step):
                    rows = min(step, head.height - first)
                    raw = region.fetch(0, top + first, head.width, rows)
                    strip: Pixels = np.frombuffer(raw, dtype=head.dtype)
                    if head.dtype == np.float32 and not np.isfinite(strip).all():
                        raise ImageError(f"{self.path} holds NaN or infinity; mend those pixels")
                    yield strip.reshape(rows, head.width, head.channels)


@contextmanager
def _reading(path: Path) -> Generator[None]:
    """Turn what goes wrong with a file into an :class:`ImageError` of one line."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    except pyvips.Error as error:
        if "HEVC" in str(error):
            raise ImageError(
                f"{path} is HEIC, which this libvips cannot decode; install libvips with libde265 "
                "from your system in place of pyvips-binary"
            ) from error
        raise ImageError(f"{path} is no readable image, or damaged: {_reason(error)}") from error


def _reason(error: pyvips.Error) -> str:
    """What libvips says, on one line; older complaints may stand before the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1:])[:160] or "it does not say why"


def _load(path: Path, *, access: str = "sequential", **options: Any) -> Any:
    return cast(Any, pyvips.Image).new_from_file(
        str(path), access=access, fail_on="truncated", **options
    )


def _measure(path: Path, max_pixels: int, *, first_page: bool) -> tuple[int, tuple[str, ...]]:
    """How many pages are to be read, and what is left behind; refuses what is too large."""
    image = _load(path)
    pages = image.get("n-pages") if image.get_typeof("n-pages") and not first_page else 1
    _check_size(path, image.width * image.height * pages, max_pixels)
    if pages == 1:
        return 1, ()
    if image.get("vips-loader").startswith("heif"):
        return 1, (f"holds {pages} pictures; only the main one is enlarged",)
    try:
        whole = _load(path, n=-1)
    except pyvips.Error as error:
        if "differs" not in str(error):
            raise
        return 1, (f"has {pages} pages of several sizes; only the first is enlarged",)
    _check_size(path, whole.width * whole.height, max_pixels)
    return pages, ()


def _decode(path: Path, pages: int) -> Any:
    """The pages above each other, upright and plain; pixels are decoded when asked for."""
    image = _load(path, n=-1) if pages > 1 else _load(path)
    if pages == 1 and image.get_typeof("orientation") and image.get("orientation") != 1:
        # Turning needs any row at any time; libvips keeps large images in a nameless file.
        image = _load(path, access="random").autorot()
    return _plain(image, path)


def _check_size(path: Path, count: int, max_pixels: int) -> None:
    if count > max_pixels:
        raise ImageTooLargeError(
            f"{path} has {count / 1e6:.0f} megapixels, the limit is "
            f"{max_pixels / 1e6:.0f}; lift it with --max-megapixels"
        )


def _plain(image: Any, path: Path) -> Any:
    """Grey or RGB, with or without alpha, in one of the three depths."""
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
            f"{path} has {image.format} samples; 8, 16 or 32 bits without sign, or 32-bit floats"
        )
    if image.bands not in (1, 2, 3, 4) or image.hasalpha() == bool(image.bands % 2):
        raise ImageError(f"{path} has {image.bands} bands; grey or RGB, with or without alpha")
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


def write_picture(path: Path, picture: Picture, *, quality: int = 95) -> None:
    """Encode ``picture`` in the format of the suffix of ``path``; see :func:`write_strips`."""
    height, width, channels = picture.pixels.shape
    header = Header(
        width, height, channels, picture.pixels.dtype, picture.carried, picture.resolution
    )
    write_strips(path, header, [picture.pixels], quality=quality)


def check_writable(path: Path, header: Header) -> tuple[str, ...]:
    """Ask before the work whether ``path`` can hold such a picture.

    Returns:
        What its format cannot keep, for people.

    Raises:
        OutputError: it cannot hold the picture at all.
    """
    form = WRITABLE[format_of(path)]
    side = max(header.width, header.height)
    if side > form.max_side:
        raise OutputError(
            f"{path} would be {header.width}x{header.height} pixels, and {form.title} holds "
            f"{form.max_side} a side; give --format {_able(lambda f: side <= f.max_side)}"
        )
    if header.pages > 1 and not form.pages:
        raise OutputError(
            f"{path} would be one picture of {header.pages}, {form.title} holds no animation "
            f"here; give --format {_able(lambda f: f.pages)}"
        )
    if header.dtype == np.float32 and not form.floats:
        raise OutputError(
            f"{path} would hold 32-bit floats, which {form.title} cannot; give --format tiff"
        )
    lost = {
        "16 bits become 8": header.dtype == np.uint16 and not form.deep,
        "alpha is laid on white": header.channels in (2, 4) and not form.alpha,
        "frame delays are dropped": bool(header.delays) and not form.delays,
        "EXIF is dropped": form.title == "TIFF" and tells_something(header.carried),
    }
    return tuple(f"{form.title}: {what}" for what, happens in lost.items() if happens)


def _able(test: Callable[[ImageFormat], bool]) -> str:
    return " or ".join(name for name, form in WRITABLE.items() if test(form))


def write_strips(
    path: Path, header: Header, strips: Iterable[Pixels], *, quality: int = 95
) -> None:
    """Encode a picture that comes in strips of rows, atomically.

    16-bit pixels stay 16-bit in PNG and TIFF, become 12-bit in AVIF and 8-bit in JPEG, WebP and
    GIF. JPEG has no alpha: it is laid on white.

    Args:
        path: where to; its suffix names the format.
        header: of the picture.
        strips: ``(rows, W, C)`` of ``header``'s dtype, all rows of all pages in order. What they
            raise is raised again.
        quality: 1..100, of the lossy formats; 100 is lossless in WebP and AVIF.

    Raises:
        OutputError: the suffix is unknown, the format cannot hold such a picture, or the file
            cannot be written; an older file is left as it was.
    """
    check_writable(path, header)
    name = format_of(path)
    if name == "png" and header.pages > 1:
        _write_moving_png(path, header, strips)
        return
    stream = RowStream(header.width, header.height * header.pages, header.channels, header.dtype)
    try:
        with atomic_path(path) as part:
            image = _with_metadata(stream.image(strips, _FORMAT[header.dtype.name]), header)
            _save(image, name, part, quality, header)
    except pyvips.Error as error:
        if stream.error is not None:
            raise stream.error from None
        raise OutputError(f"cannot write {path}: {_reason(error)}") from error


def _write_moving_png(path: Path, header: Header, strips: Iterable[Pixels]) -> None:
    still = replace(header, pages=1, delays=())

    def encoded() -> Iterator[bytes]:
        for pixels in _whole_pages(strips, header.height):
            image = pyvips.Image.new_from_memory(
                pixels.data, header.width, header.height, header.channels,
                _FORMAT[header.dtype.name],
            )  # fmt: skip
            page = io.BytesIO()
            save_png(_with_metadata(image, still), page)
            yield page.getvalue()

    try:
        with atomic_path(path) as part, part.open("wb") as file:
            write_animation(file, encoded(), header.pages, header.delays, header.loop)
    except pyvips.Error as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}") from error


def _whole_pages(strips: Iterable[Pixels], height: int) -> Iterator[Pixels]:
    """Strips of rows, as pages of ``height`` rows."""
    pending: list[Pixels] = []
    for strip in strips:
        pending.append(strip)
        while sum(part.shape[0] for part in pending) >= height:
            rows = np.concatenate(pending)
            yield np.ascontiguousarray(rows[:height])
            pending = [rows[height:]]


def _with_metadata(image: Any, header: Header) -> Any:
    grey = header.channels < 3
    colour = {
        "uint8": ("srgb", "b-w"), "uint16": ("rgb16", "grey16"), "float32": ("scrgb", "b-w"),
    }[header.dtype.name][grey]  # fmt: skip
    xres, yres = header.resolution
    image = image.copy(interpretation=colour, xres=xres, yres=yres)
    for name, (kind, value) in header.carried.items():
        image.set_type(kind, name, value)
    integer = pyvips.GValue.gint_type
    if header.pages > 1:
        image.set_type(integer, "page-height", header.height)
        image.set_type(integer, "loop", header.loop)
    if header.delays:
        image.set_type(pyvips.GValue.array_int_type, "delay", list(header.delays))
    return image


def _save(image: Any, name: str, part: Path, quality: int, header: Header) -> None:
    if image.bands in (2, 4) and not WRITABLE[name].alpha:
        image = image.flatten(background=full_scale(header.dtype))
    if image.format == "ushort" and not WRITABLE[name].deep:
        image = image.colourspace("srgb" if image.bands > 2 else "b-w")
    if name == "png":
        with part.open("wb") as file:
            save_png(image, file)
        return
    count = image.width * image.height
    lossless = quality == 100
    savers: dict[str, tuple[str, dict[str, Any]]] = {
        # Optimised Huffman tables save little, take long, and need all coefficients in memory.
        "jpg": (
            "jpegsave",
            {"Q": quality, "subsample_mode": "off", "optimize_coding": False},
        ),
        "webp": ("webpsave", {"Q": quality, "smart_subsample": True, "lossless": lossless}),
        "tiff": (
            "tiffsave",
            {
                "compression": "deflate",
                "predictor": "float" if image.format == "float" else "horizontal",
                "bigtiff": count * image.bands * header.dtype.itemsize > HUGE_TIFF,
            },
        ),
        "avif": (
            "heifsave",
            {
                "Q": quality,
                "lossless": lossless,
                "compression": "av1",
                "effort": 4,
                "subsample_mode": "off",
                "bitdepth": 12 if image.format == "ushort" else 8,
            },
        ),
        # Frames that are alike are frames all the same.
        "gif": ("gifsave", {"keep_duplicate_frames": True}),
        "jxl": ("jxlsave", {"Q": quality, "lossless": lossless}),
    }
    saver, options = savers[name]
    getattr(image, saver)(str(part), **options)
