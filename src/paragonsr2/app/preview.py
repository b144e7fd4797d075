"""Copies of pictures that any browser can show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from paragonsr2.clips.clip import probe
from paragonsr2.clips.container import is_video
from paragonsr2.clips.frames import read_frames
from paragonsr2.errors import ImageError, ImageTooLargeError
from paragonsr2.images import formats
from paragonsr2.images.apng import count_frames

#: libvips as that module leaves it: without the loaders that hostile files may not reach.
pyvips = formats.pyvips

#: Largest side of a shown copy; browsers keep 4 bytes for each of its pixels.
MAX_SIDE = 6144

#: The frame of a clip that is shown, if it has so many: the first ones are often black.
SHOWN_FRAME = 24


@dataclass(frozen=True)
class Size:
    """Width and height in pixels of one page or frame.

    Attributes:
        pages: of an animation or document.
        frames: of a clip, 0 while they are not counted; None for a picture.
    """

    width: int
    height: int
    pages: int = 1
    frames: int | None = None

    @property
    def pixels(self) -> int:
        """Of all pages or frames."""
        return self.width * self.height * self.pages * (self.frames or 1)


def make_preview(source: Path, target: Path, *, max_pixels: int) -> Size:
    """Write a page or frame of ``source`` as an 8-bit sRGB PNG, upright.

    Args:
        source: an image or video file.
        target: a ``.png`` to write, its sides at most :data:`MAX_SIDE`.
        max_pixels: refuse what claims more, all pages together or in a frame, before decoding.

    Returns:
        The upright size of ``source``.

    Raises:
        ImageError: no image, or a damaged one.
        ImageTooLargeError: more than ``max_pixels``.
    """
    if is_video(source):
        return _clip_preview(source, target, max_pixels)
    try:
        image = cast(Any, pyvips.Image).new_from_file(str(source), access="sequential")
        size = _size(image, count_frames(source))
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


def _clip_preview(source: Path, target: Path, max_pixels: int) -> Size:
    try:
        clip = probe(source, max_pixels=max_pixels)
        pixels = None
        for frame in read_frames(clip):
            pixels = pixels if frame.pixels is None else frame.pixels
            if frame.index >= SHOWN_FRAME:
                break
    except ImageTooLargeError as error:
        limit = f"{max_pixels / 1e6:.1f} megapixels"
        raise ImageTooLargeError(
            f"the clip's frames are too large; at this scale the page takes {limit}"
        ) from error
    except ImageError as error:
        raise ImageError("this is no readable clip, or it is damaged") from error
    if pixels is None:
        raise ImageError("this clip has no frame that can be read")
    height, width, bands = pixels.shape
    deep = pixels.dtype.itemsize == 2
    shown = cast(Any, pyvips.Image).new_from_memory(
        pixels.tobytes(), width, height, bands, "ushort" if deep else "uchar"
    )
    shown = (shown >> 8 if deep else shown).cast("uchar").copy(interpretation="srgb")
    if max(width, height) > MAX_SIDE:
        shown = shown.thumbnail_image(MAX_SIDE, size="down")
    shown.write_to_file(str(target), compression=1)
    return Size(width, height, frames=0)


def _size(image: Any, frames: int) -> Size:
    """The upright size; ``frames`` are those of an animated PNG, which libvips does not count."""
    # The pages of HEIF are other pictures, which are not enlarged.
    has_pages = image.get_typeof("n-pages") and not image.get("vips-loader").startswith("heif")
    pages = image.get("n-pages") if has_pages else frames
    if image.get_typeof("orientation") and image.get("orientation") in (5, 6, 7, 8):
        return Size(image.height, image.width, pages)
    return Size(image.width, image.height, pages)


def _text(size: Size) -> str:
    pages = f" of {size.pages} pages" if size.pages > 1 else ""
    return f"{size.width}x{size.height}{pages}"
