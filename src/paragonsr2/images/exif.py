"""Editing an EXIF block so that it fits the enlarged picture."""

from __future__ import annotations

import struct
from collections.abc import Iterable

#: Tags about the pixels and the block itself, which encoders write anew.
_OF_THE_PIXELS = frozenset(
    {
        "ColorSpace", "ComponentsConfiguration", "ExifVersion", "FlashpixVersion", "Orientation",
        "PixelXDimension", "PixelYDimension", "ResolutionUnit", "XResolution", "YCbCrPositioning",
        "YResolution",
    }
)  # fmt: skip


#: Orientation, XResolution, YResolution and ResolutionUnit.
_REPLACED = (0x0112, 0x011A, 0x011B, 0x0128)


def is_kept(field: str) -> bool:
    """Whether a libvips metadata field still holds for an enlarged picture, if it is of EXIF."""
    if field.startswith("exif-ifd1-"):
        return False  # of the thumbnail
    return not field.startswith("exif-ifd") or field.rpartition("-")[2] not in _OF_THE_PIXELS


def without_pixel_facts(exif: bytes) -> bytes:
    """Remove resolution, orientation and thumbnail from an EXIF block.

    libvips fills in missing tags from the image, and keeps those that it finds.

    The block is a TIFF file: a header that points to the first directory, which is a count,
    entries of 12 bytes, and where the next directory is: that of the thumbnail. Bytes that
    nothing points to any more are dropped when the block is packed anew. A damaged block comes
    back as it is.

    Source: CIPA DC-008, "Exchangeable image file format", 4.5.
    """
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None:
        return exif
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, start + 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start + first)
    except struct.error:
        return exif
    begin = start + first + 2
    end = begin + 12 * count + 4
    if end > len(exif):
        return exif
    entries = [exif[at : at + 12] for at in range(begin, end - 4, 12)]
    kept = [one for one in entries if struct.unpack(f"{order}H", one[:2])[0] not in _REPLACED]
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept)
    # The pointer to the next directory is among the zeros.
    return exif[: begin - 2] + directory.ljust(end - begin + 2, b"\0") + exif[end:]


def tells_something(fields: Iterable[str]) -> bool:
    """Whether libvips' metadata ``fields`` hold EXIF beyond what every encoder writes."""
    return any(field.startswith("exif-ifd") and is_kept(field) for field in fields)
