"""The image formats: how each is recognised, what it can hold, and whether libvips has it here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paragonsr2.errors import EnvironmentProblem, OutputError

try:
    import pyvips
except (ImportError, OSError) as error:
    raise EnvironmentProblem(
        f"libvips does not load ({error}); reinstall: pip install pyvips pyvips-binary"
    ) from error


@dataclass(frozen=True)
class ImageFormat:
    """One file format.

    Attributes:
        title: its name in messages.
        suffixes: of its files; the first is the one written.
        signature: regular expression that the first :data:`SIGNATURE_BYTES` of a file match.
        loader: the libvips operation that reads it.
        max_side: largest width or height that it can hold, in pixels.
        deep: it can hold more than 8 bits a sample.
        floats: it can hold 32-bit floating point samples.
        alpha: it can hold transparency.
        pages: it can hold an animation or several pages.
        delays: it can hold how long each frame is shown.
        writes_as: the format in which the enlarged file is written, if not this one.
    """

    title: str
    suffixes: tuple[str, ...]
    signature: bytes
    loader: str
    max_side: int
    deep: bool = False
    floats: bool = False
    alpha: bool = True
    pages: bool = False
    delays: bool = False
    writes_as: str = ""


#: How much of a file has to be read to recognise its format.
SIGNATURE_BYTES = 16

_ALL: dict[str, ImageFormat] = {
    "png": ImageFormat(
        "PNG", (".png", ".apng"), rb"\x89PNG\r\n\x1a\n", "pngload", 10_000_000,
        deep=True, pages=True, delays=True,
    ),
    "jpg": ImageFormat(
        "JPEG", (".jpg", ".jpeg"), rb"\xff\xd8\xff", "jpegload", 65_500, alpha=False
    ),
    "webp": ImageFormat(
        "WebP", (".webp",), rb"RIFF....WEBP", "webpload", 16_383, pages=True, delays=True
    ),
    "tiff": ImageFormat(
        "TIFF", (".tif", ".tiff"), rb"II[*+]\0|MM\0[*+]", "tiffload", 10_000_000,
        deep=True, floats=True, pages=True,
    ),
    "avif": ImageFormat("AVIF", (".avif",), rb"....ftypavi[fs]", "heifload", 16_384, deep=True),
    "gif": ImageFormat(
        "GIF", (".gif",), rb"GIF8[79]a", "gifload", 65_535, pages=True, delays=True
    ),
    "jxl": ImageFormat(
        "JPEG XL", (".jxl",), rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "jxlload", 1_000_000,
        deep=True, pages=True, delays=True,
    ),
    # AVIF is the same container with a codec that anyone may write.
    "heic": ImageFormat(
        "HEIC", (".heic", ".heif"), rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", "heifload", 16_384,
        deep=True, writes_as="avif",
    ),
}  # fmt: skip


def _known() -> dict[str, ImageFormat]:
    """The formats that this libvips was built with."""
    there = set(pyvips.get_suffixes())
    return {
        name: form
        for name, form in _ALL.items()
        # A HEIF loader without the codec of HEIC says so when it opens such a file.
        if form.suffixes[0] in there
    }


FORMATS: Mapping[str, ImageFormat] = _known()

#: File suffixes that are read.
READABLE = frozenset(suffix for form in FORMATS.values() for suffix in form.suffixes)

#: Formats that are written.
WRITABLE: Mapping[str, ImageFormat] = {
    name: form for name, form in FORMATS.items() if not form.writes_as
}

_NAME_OF_SUFFIX = {suffix: name for name, form in _ALL.items() for suffix in form.suffixes}


def recognise(head: bytes) -> ImageFormat | None:
    """The readable format of a file that starts with ``head``, whatever its name; else None."""
    for form in FORMATS.values():
        if re.match(form.signature, head, re.DOTALL):
            return form
    return None


def format_of(path: Path) -> str:
    """The format that the suffix of ``path`` names.

    Raises:
        OutputError: no format with this suffix can be written.
    """
    name = _NAME_OF_SUFFIX.get(path.suffix.lower(), "")
    if name in WRITABLE:
        return name
    known = ", ".join(sorted(form.suffixes[0] for form in WRITABLE.values()))
    why = "; this libvips was built without it" if name and name not in FORMATS else ""
    raise OutputError(f"cannot write '{path.suffix}' files{why}; use one of {known}")


def kept_suffix(path: Path) -> str:
    """The suffix of the enlarged file when the format of ``path`` is kept.

    A format that can only be read becomes the nearest one that can be written. An unknown suffix
    stays, and is refused when the file is written.
    """
    form = FORMATS.get(_NAME_OF_SUFFIX.get(path.suffix.lower(), ""))
    return FORMATS[form.writes_as].suffixes[0] if form and form.writes_as else path.suffix


# What pyvips says of any failure, before what libvips says of this one.
_GENERAL = ("unable to call", "unable to copy to memory", "unable to fetch")


def complaint(error: pyvips.Error) -> str:
    """The last thing that libvips complained about, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(_GENERAL)]
    return " ".join(told[-1:])[:160] or "libvips gives no reason"
