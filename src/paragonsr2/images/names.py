"""Names and defaults of the image formats; importing this module loads no library."""

from __future__ import annotations

from typing import Literal

#: The formats that can be written; what ``--format`` accepts, beside ``keep``.
ImageFormatName = Literal["png", "jpg", "webp", "tiff", "avif", "gif", "jxl"]

#: Default quality of the lossy formats, 1..100.
DEFAULT_QUALITY = 95
