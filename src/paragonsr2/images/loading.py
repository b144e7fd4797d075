"""Opening image files in libvips with the one loader that fits the first bytes of the file.

libvips itself would offer a file to every loader that it was built with: SVG, PDF, ImageMagick,
CSV and so on. Those are beyond the reach of hostile files here, because no loader is ever searched
for. Nothing in libvips' global state is changed, which belongs to the host program.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import pyvips

from paragonsr2.errors import ImageError
from paragonsr2.images.formats import FORMATS, SIGNATURE_BYTES, recognise

#: What ends decoding: damage, or anything that libvips would only warn of.
FailOn = Literal["error", "warning"]


@contextmanager
def text_errors() -> Generator[None]:
    """Raise libvips' complaints that quote damaged metadata, and are not text, like its others."""
    try:
        yield
    except UnicodeDecodeError as error:
        # pyvips has not come to clearing it, and the next file would get it.
        pyvips.vips_lib.vips_error_clear()
        raise pyvips.Error("its metadata is not text") from error


def open_image(
    path: Path,
    *,
    access: Literal["sequential", "random"] = "sequential",
    fail_on: FailOn = "error",
    **options: Any,
) -> Any:
    """Open an image file; its header is read, its pixels are decoded when they are asked for.

    Args:
        path: a file in one of :data:`~paragonsr2.images.formats.FORMATS`, whatever its suffix.
        access: ``sequential`` for reading the pixels once, top to bottom.
        fail_on: what ends decoding. Good files of many programs come with warnings, see
            ``results/robustness/decode_levels.json``.
        options: of the libvips loader.

    Returns:
        A ``pyvips.Image``.

    Raises:
        ImageError: the file is in none of the formats.
        pyvips.Error: it is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        form = recognise(file.read(SIGNATURE_BYTES))
    if form is None:
        known = ", ".join(form.title for form in FORMATS.values())
        raise ImageError(f"{path} is not an image in a known format ({known})")
    if access == "random":
        # Else libvips may answer from its cache with what the file held before.
        options["revalidate"] = True
    load = cast(Any, pyvips.Operation).call
    # The name as bytes: it need not be UTF-8.
    return load(form.loader, os.fsencode(path), access=access, fail_on=fail_on, **options)
