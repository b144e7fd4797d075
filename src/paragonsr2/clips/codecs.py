"""The video codecs that can be written; importing this module loads no library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: What ``--codec`` accepts, beside ``keep``.
CodecName = Literal["h264", "hevc", "av1", "ffv1", "prores"]

#: Default quality of the lossy codecs, 1..100.
DEFAULT_QUALITY = 64

_X26X_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip


@dataclass(frozen=True)
class CodecRow:
    """One codec.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        presets: what ``--preset`` accepts; empty if the encoder has no presets.
        preset: the default preset.
        crf: the constant rate factor of the lowest quality; 0 if the codec is lossless or its
            quality follows from its profile.
        parameters: the FFmpeg option that passes settings on to the encoder library.
        aspect: the coded stream itself records the pixel aspect ratio.
    """

    encoder: str
    presets: tuple[str, ...] = ()
    preset: str = ""
    crf: float = 0.0
    parameters: str = ""
    aspect: bool = False


#: The codecs, by name.
CODECS: Mapping[str, CodecRow] = {
    "h264": CodecRow("libx264", _X26X_PRESETS, "medium", 51, "x264-params", aspect=True),
    "hevc": CodecRow("libx265", _X26X_PRESETS, "medium", 51, "x265-params", aspect=True),
    "av1": CodecRow("libsvtav1", tuple(map(str, range(14))), "8", 63, "svtav1-params"),
    "ffv1": CodecRow("ffv1"),
    "prores": CodecRow("prores_ks"),
}
