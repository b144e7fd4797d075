"""Names that strangers give to files."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

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
