"""Previews: copies of images and clips that any browser can show."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyvips

from paragonsr2.clips.clip import probe
from paragonsr2.clips.container import is_video
from paragonsr2.clips.frames import read_frames
from paragonsr2.errors import ImageError, ImageTooLargeError
from paragonsr2.images.apng import count_frames
from paragonsr2.images.loading import open_image, text_errors

#: Largest side of a preview in pixels; a browser keeps 4 bytes for each of them.
MAX_SIDE = 6144

#: Index of the frame shown for a clip that has that many: the first frames are often black.
SHOWN_FRAME = 24


@dataclass(frozen=True)
class MediaSize:
    """Dimensions of an image or clip.

    Attributes:
        width: of one page or frame, in pixels.
        height: of one page or frame, in pixels.
        pages: number of pages of an animation or document.
        frames: number of frames of a clip, 0 while unknown; None for an image.
    """

    width: int
    height: int
    pages: int = 1
    frames: int | None = None

    @property
    def pixels(self) -> int:
        """Number of pixels of all pages or frames together."""
        return self.width * self.height * self.pages * (self.frames or 1)


def make_preview(source: Path, target: Path, *, max_pixels: int) -> MediaSize:
    """Write one page or frame of ``source`` as an upright 8-bit sRGB PNG.

    Args:
        source: an image or video file.
        target: the ``.png`` to write, at most :data:`MAX_SIDE` pixels a side.
        max_pixels: limit for all pages of an image together, or for one frame of a clip;
            checked before decoding.

    Returns:
        The dimensions of ``source``, upright.

    Raises:
        ImageError: ``source`` is not an image or clip, or is damaged.
        ImageTooLargeError: ``source`` has more than ``max_pixels``.
    """
    if is_video(source):
        return _clip_preview(source, target, max_pixels)
    with _without_paths(), text_errors():
        image, size = _open(source, max_pixels)
        shown = image.thumbnail_image(MAX_SIDE, size="down", export_profile="srgb")
        shown.cast("uchar").write_to_file(str(target), compression=1, keep="none")
    return size


def media_size(source: Path, *, max_pixels: int) -> MediaSize:
    """The dimensions of an image by its header.

    Args:
        source: an image file.
        max_pixels: limit for all pages together.

    Raises:
        ImageError: it is not an image, or its header is damaged.
        ImageTooLargeError: it has more than ``max_pixels``.
    """
    with _without_paths(), text_errors():
        return _open(source, max_pixels)[1]


@contextmanager
def _without_paths() -> Generator[None]:
    """The errors of reading an image, without its path, which no client should see."""
    try:
        yield
    except (pyvips.Error, ImageError) as error:
        raise ImageError("this picture cannot be read; it may be damaged or incomplete") from error


def _open(source: Path, max_pixels: int) -> tuple[Any, MediaSize]:
    image = open_image(source)
    size = _size(image, count_frames(source))
    if size.pixels > max_pixels:
        raise ImageTooLargeError(
            f"{_text(size)} is {size.pixels / 1e6:.1f} megapixels, "
            f"more than the {max_pixels / 1e6:g} that are taken"
        )
    return image, size


def _clip_preview(source: Path, target: Path, max_pixels: int) -> MediaSize:
    try:
        clip = probe(source, max_pixels=max_pixels)
        pixels = None
        for frame in read_frames(clip):
            pixels = pixels if frame.pixels is None else frame.pixels
            if frame.index >= SHOWN_FRAME:
                break
    except ImageTooLargeError as error:
        limit = f"{max_pixels / 1e6:g} megapixels"
        raise ImageTooLargeError(
            f"the clip's frames have more than the {limit} that are taken"
        ) from error
    except ImageError as error:
        raise ImageError("this clip cannot be read; it may be damaged") from error
    if pixels is None:
        raise ImageError("this clip has no readable frame")
    height, width, bands = pixels.shape
    deep = pixels.dtype.itemsize == 2
    shown = cast(Any, pyvips.Image).new_from_memory(
        pixels.tobytes(), width, height, bands, "ushort" if deep else "uchar"
    )
    shown = (shown >> 8 if deep else shown).cast("uchar").copy(interpretation="srgb")
    if max(width, height) > MAX_SIDE:
        shown = shown.thumbnail_image(MAX_SIDE, size="down")
    shown.write_to_file(str(target), compression=1)
    return MediaSize(width, height, frames=0)


def _size(image: Any, frames: int) -> MediaSize:
    """Upright dimensions; ``frames`` counts those of an animated PNG, which libvips does not."""
    # The pages of a HEIF file are separate images, which are not upscaled.
    has_pages = image.get_typeof("n-pages") and not image.get("vips-loader").startswith("heif")
    pages = image.get("n-pages") if has_pages else frames
    if image.get_typeof("orientation") and image.get("orientation") in (5, 6, 7, 8):
        return MediaSize(image.height, image.width, pages)
    return MediaSize(image.width, image.height, pages)


def _text(size: MediaSize) -> str:
    pages = f" of {size.pages} pages" if size.pages > 1 else ""
    return f"{size.width}x{size.height}{pages}"
