"""Names that strangers give to files, and names of results."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePath, PurePosixPath

from paragonsr2.clips.container import VIDEO_SUFFIXES
from paragonsr2.clips.plan import target_suffix
from paragonsr2.images.formats import WRITABLE, kept_suffix

_LONGEST_NAME = 100


def harmless_name(name: str) -> str:
    """The last part of a path, without control characters and what file systems reject."""
    last = PurePosixPath(name.replace("\\", "/")).name
    visible = "".join(c for c in last if unicodedata.category(c)[0] != "C")
    plain = re.sub(r'[<>:"|?*]', "_", visible).strip(". ")
    stem, dot, suffix = plain.rpartition(".")
    if dot and len(suffix) <= 8:
        return f"{stem[: _LONGEST_NAME - len(suffix)] or 'file'}.{suffix}"
    return plain[:_LONGEST_NAME] or "file"


def result_suffix(source: Path, wanted: str) -> str:
    """The suffix of a result.

    Args:
        source: the picture or clip; its suffix is that of its kind.
        wanted: ``keep``, a format of pictures for a picture, or a container for a clip.
    """
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return target_suffix(source) if wanted == "keep" else f".{wanted}"
    return kept_suffix(source) if wanted == "keep" else WRITABLE[wanted].suffixes[0]


def result_name(source: str, scale: int, suffix: str) -> str:
    """What a result is called when it is saved, as the command calls it."""
    return f"{PurePath(source).stem}_x{scale}{suffix}"
