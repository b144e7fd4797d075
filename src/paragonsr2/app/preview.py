"""Copies of pictures that any browser can show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from paragonsr2.errors import ImageError, ImageTooLargeError
from paragonsr2.pixels import formats

#: libvips as that module leaves it: without the loaders that hostile files may not reach.
pyvips = formats.pyvips

#: Largest side of a shown copy; browsers keep 4 bytes for each of its pixels.
MAX_SIDE = 6144


@dataclass(frozen=True)
class Size:
    """Width and height in pixels of one page, and how many there are."""

    width: int
    height: int
    pages: int = 1

    @property
    def pixels(self) -> int:
        """Of all pages."""
        return self.width * self.height * self.pages


def make_preview(source: Path, target: Path, *, max_pixels: int) -> Size:
    """Write the first page of ``source`` as an 8-bit sRGB PNG, upright.

    Args:
        source: an image file.
        target: a ``.png`` to write, its sides at most :data:`MAX_SIDE`.
        max_pixels: refuse an image that claims more, all pages together, before decoding it.

    Returns:
        The upright size of ``source``.

    Raises:
        ImageError: no image, or a damaged one.
        ImageTooLargeError: more than ``max_pixels``.
    """
    try:
        size = _size(cast(Any, pyvips.Image).new_from_file(str(source), access="sequential"))
        if size.pixels > max_pixels:
            raise ImageTooLargeError(
                f"{_text(size)} is {size.pixels / 1e6:.1f} megapixels; "
                f"at this scale the page takes {max_pixels / 1e6:.1f}"
            )
        shown = cast(Any, pyvips.Image).thumbnail(
            str(source), MAX_SIDE, size="down", export_profile="srgb", fail_on="truncated"
        )
        shown.cast("uchar").write_to_file(str(target), compression=1, keep="none")
    except pyvips.Error as error:
        # libvips' own words name the path, which is no visitor's business.
        raise ImageError("this is no readable picture, or it is damaged or cut short") from error
    return size


def _size(image: Any) -> Size:
    # The pages of HEIF are other pictures, which are not enlarged.
    has_pages = image.get_typeof("n-pages") and not image.get("vips-loader").startswith("heif")
    pages = image.get("n-pages") if has_pages else 1
    if image.get_typeof("orientation") and image.get("orientation") in (5, 6, 7, 8):
        return Size(image.height, image.width, pages)
    return Size(image.width, image.height, pages)


def _text(size: Size) -> str:
    pages = f" of {size.pages} pages" if size.pages > 1 else ""
    return f"{size.width}x{size.height}{pages}"
