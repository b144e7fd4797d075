"""The image formats: what each can hold, and which of them the installed libvips knows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paragonsr2.errors import EnvironmentProblem, OutputError

# libvips prints its warnings to stderr unless told before it loads.
os.environ.setdefault("VIPS_WARNING", "0")
try:
    import pyvips
except (ImportError, OSError) as error:
    raise EnvironmentProblem(
        f"libvips does not load ({error}); reinstall: pip install pyvips pyvips-binary"
    ) from error

#: Loaders that hostile files may reach: those of the formats below, which are fuzzed. All others
#: are blocked, whatever the installed libvips was built with.
_LOADERS = ("Heif", "Jpeg", "Jxl", "Nsgif", "Png", "Tiff", "Webp")

pyvips.operation_block_set("VipsForeignLoad", True)
for _loader in _LOADERS:
    pyvips.operation_block_set(f"VipsForeignLoad{_loader}", False)
pyvips.cache_set_max(0)


@dataclass(frozen=True)
class ImageFormat:
    """What a file format can hold.

    Attributes:
        title: for people.
        suffixes: of its files; the first is the one written.
        max_side: pixels.
        deep: more than 8 bits a sample.
        floats: 32-bit floating point samples.
        alpha: transparency.
        pages: animation or several pages.
        delays: how long each page is shown.
        writes_as: the format in which an enlarged file of this one is kept.
    """

    title: str
    suffixes: tuple[str, ...]
    max_side: int
    deep: bool = False
    floats: bool = False
    alpha: bool = True
    pages: bool = False
    delays: bool = False
    writes_as: str = ""


_ALL: dict[str, ImageFormat] = {
    "png": ImageFormat("PNG", (".png", ".apng"), 10_000_000, deep=True, pages=True, delays=True),
    "jpg": ImageFormat("JPEG", (".jpg", ".jpeg"), 65_500, alpha=False),
    "webp": ImageFormat("WebP", (".webp",), 16_383, pages=True, delays=True),
    "tiff": ImageFormat("TIFF", (".tif", ".tiff"), 10_000_000, deep=True, floats=True, pages=True),
    "avif": ImageFormat("AVIF", (".avif",), 16_384, deep=True),
    "gif": ImageFormat("GIF", (".gif",), 65_535, pages=True, delays=True),
    "jxl": ImageFormat("JPEG XL", (".jxl",), 1_000_000, deep=True, pages=True, delays=True),
    # AVIF is the same container with a codec that anyone may write.
    "heic": ImageFormat("HEIC", (".heic", ".heif"), 16_384, deep=True, writes_as="avif"),
}


def _known() -> dict[str, ImageFormat]:
    """The formats that this libvips was built with."""
    there = set(pyvips.get_suffixes())
    return {
        name: form
        for name, form in _ALL.items()
        # A HEIF loader may lack the codec of HEIC; that is said when a file is opened.
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


def format_of(path: Path) -> str:
    """The format that the suffix of ``path`` names, if it can be written.

    Raises:
        OutputError: the suffix is none that is written here.
    """
    name = _NAME_OF_SUFFIX.get(path.suffix.lower(), "")
    if name in WRITABLE:
        return name
    known = ", ".join(sorted(form.suffixes[0] for form in WRITABLE.values()))
    why = "; this libvips is built without it" if name and name not in FORMATS else ""
    raise OutputError(f"cannot write '{path.suffix}' files{why}; take one of {known}")


def kept_suffix(path: Path) -> str:
    """The suffix of what ``path`` becomes when its format is kept.

    A format that is only read becomes its nearest relative; an unknown suffix stays, to be
    refused when it is written.
    """
    form = FORMATS.get(_NAME_OF_SUFFIX.get(path.suffix.lower(), ""))
    return FORMATS[form.writes_as].suffixes[0] if form and form.writes_as else path.suffix


def complaint(error: pyvips.Error) -> str:
    """What libvips says, on one line; older complaints may stand before the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1:])[:160] or "it does not say why"
