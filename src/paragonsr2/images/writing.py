"""Writing image files through libvips, in strips of whole rows, with their metadata."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from paragonsr2.arrays.pixels import Pixels, full_scale
from paragonsr2.errors import OutputError
from paragonsr2.files import atomic_path, require_room
from paragonsr2.images.apng import write_animation
from paragonsr2.images.exif import tells_something
from paragonsr2.images.formats import WRITABLE, ImageFormat, complaint, format_of
from paragonsr2.images.header import Header, Picture
from paragonsr2.images.png import save_png
from paragonsr2.images.rowstream import RowStream

#: Bytes of pixels above which a TIFF is written with 64-bit offsets.
HUGE_TIFF = 4_000_000_000


_FORMAT = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}


def write_picture(path: Path, picture: Picture, *, quality: int = 95) -> None:
    """Encode ``picture`` in the format of the suffix of ``path``; see :func:`write_strips`."""
    height, width, channels = picture.pixels.shape
    header = Header(
        width, height, channels, picture.pixels.dtype, picture.carried, picture.resolution
    )
    write_strips(path, header, [picture.pixels], quality=quality)


def check_writable(path: Path, header: Header) -> tuple[str, ...]:
    """Check, before any work is done, that the format of ``path`` can hold such a picture.

    Returns:
        Messages about what the format cannot keep.

    Raises:
        OutputError: the format cannot hold the picture at all.
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
    """Encode a picture that comes in strips of rows, and write it atomically.

    16-bit pixels stay 16-bit in PNG and TIFF, and become 12-bit in AVIF and 8-bit in JPEG, WebP and
    GIF. JPEG has no alpha, so transparent pictures are laid on white.

    Args:
        path: file to write; its suffix names the format.
        header: of the picture.
        strips: ``(rows, W, C)`` of ``header``'s dtype, all rows of all pages in order. What they
            raise is raised again.
        quality: 1..100, of the lossy formats; 100 is lossless in WebP and AVIF.

    Raises:
        BusyOutputError: another process is writing the file.
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
        with atomic_path(path, alone=True) as part, _telling_of_room(part, path, stream):
            image = _with_metadata(stream.image(strips, _FORMAT[header.dtype.name]), header)
            if name == "png":
                with part.open("wb") as file:
                    save_png(image, file, in_memory=stream.in_memory)
            else:
                _save(image, name, part, quality, header)
    except pyvips.Error as error:
        if stream.error is not None:
            raise stream.error from None
        raise OutputError(f"cannot write {path}: {complaint(error)}") from error


@contextmanager
def _telling_of_room(part: Path, path: Path, stream: RowStream) -> Generator[None]:
    """A codec whose file is full raises what tells nothing, such as "Unknown error -1"."""
    try:
        yield
    except pyvips.Error:
        if stream.error is None:
            require_room(part, path)
        raise


def _write_moving_png(path: Path, header: Header, strips: Iterable[Pixels]) -> None:
    still = replace(header, pages=1, delays=())

    def encoded() -> Iterator[bytes]:
        for pixels in _whole_pages(strips, header.height):
            image = pyvips.Image.new_from_memory(
                pixels.data, header.width, header.height, header.channels,
                _FORMAT[header.dtype.name],
            )  # fmt: skip
            page = io.BytesIO()
            save_png(_with_metadata(image, still), page, in_memory=True)
            yield page.getvalue()

    try:
        with atomic_path(path, alone=True) as part, part.open("wb") as file:
            write_animation(file, encoded(), header.pages, header.delays, header.loop)
    except pyvips.Error as error:
        raise OutputError(f"cannot write {path}: {complaint(error)}") from error


def _whole_pages(strips: Iterable[Pixels], height: int) -> Iterator[Pixels]:
    """Regroup strips of rows into pages of ``height`` rows."""
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
    getattr(image, saver)(os.fsencode(part), **options)
