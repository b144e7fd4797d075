"""The video codecs that can be written; importing this module loads no library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: What ``--codec`` accepts, beside ``keep``.
CodecName = Literal[
    "h264", "hevc", "av1", "ffv1", "prores",
    "h264_nvenc", "hevc_nvenc", "av1_nvenc",
    "h264_qsv", "hevc_qsv", "av1_qsv",
    "h264_amf", "hevc_amf", "av1_amf",
    "h264_videotoolbox", "hevc_videotoolbox",
]  # fmt: skip

#: Default quality of the lossy codecs, 1..100.
DEFAULT_QUALITY = 64

_X26X_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip


@dataclass(frozen=True)
class CodecRow:
    """One way to code video.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        stream: the kind of stream it writes, which decides what containers can hold it.
        presets: what ``--preset`` accepts; empty if the encoder has no presets.
        preset: the default preset.
        preset_option: the FFmpeg option that takes it.
        crf: the constant rate factor of the lowest quality; 0 if the codec is lossless or its
            quality follows from its profile.
        rate: the FFmpeg options for a constant quality; ``{crf}`` and ``{quality}`` stand for the
            rate factor and for 1..100.
        parameters: the FFmpeg option that passes settings on to the encoder library.
        aspect: the coded stream itself records the pixel aspect ratio.
        formats: the pixel formats to choose from; empty takes the encoder's own list.
    """

    encoder: str
    stream: str
    presets: tuple[str, ...] = ()
    preset: str = ""
    preset_option: str = "preset"
    crf: float = 0.0
    rate: Mapping[str, str] = field(default_factory=dict[str, str])
    parameters: str = ""
    aspect: bool = False
    formats: tuple[str, ...] = ()

    @property
    def hardware(self) -> bool:
        """Whether it needs a GPU. Such encoders are used only where the user names them."""
        return self.encoder.endswith(("_nvenc", "_qsv", "_amf", "_videotoolbox"))


def _nvenc(stream: str, *formats: str) -> CodecRow:
    rate = {"rc": "vbr", "cq": "{crf:.0f}", "b": "0"}
    return CodecRow(
        f"{stream}_nvenc", stream, tuple(f"p{speed}" for speed in range(1, 8)), "p5", crf=51,
        rate=rate, aspect=stream != "av1", formats=formats,
    )  # fmt: skip


def _quick_sync(stream: str, *formats: str) -> CodecRow:
    return CodecRow(
        f"{stream}_qsv", stream, _X26X_PRESETS[2:], "medium", crf=51,
        rate={"global_quality": "{crf:.0f}"}, aspect=stream != "av1", formats=formats,
    )  # fmt: skip


def _amf(stream: str, *formats: str) -> CodecRow:
    rate = {"rc": "cqp", "qp_i": "{crf:.0f}", "qp_p": "{crf:.0f}"}
    return CodecRow(
        f"{stream}_amf", stream, ("speed", "balanced", "quality"), "balanced", "quality", crf=51,
        rate=rate, aspect=stream != "av1", formats=formats,
    )  # fmt: skip


def _video_toolbox(stream: str, *formats: str) -> CodecRow:
    # FFmpeg counts this quality in steps of 118 (FF_QP2LAMBDA).
    rate = {"flags": "+qscale", "global_quality": "{lambda_quality}"}
    return CodecRow(
        f"{stream}_videotoolbox", stream, crf=51, rate=rate, aspect=True, formats=formats
    )


_CRF = {"crf": "{crf:.1f}"}

#: The codecs, by name.
CODECS: Mapping[str, CodecRow] = {
    "h264": CodecRow(
        "libx264", "h264", _X26X_PRESETS, "medium", crf=51, rate=_CRF, parameters="x264-params",
        aspect=True,
    ),
    "hevc": CodecRow(
        "libx265", "hevc", _X26X_PRESETS, "medium", crf=51, rate=_CRF, parameters="x265-params",
        aspect=True,
    ),
    "av1": CodecRow(
        "libsvtav1", "av1", tuple(map(str, range(14))), "8", crf=63, rate={"crf": "{crf:.0f}"},
        parameters="svtav1-params",
    ),
    "ffv1": CodecRow("ffv1", "ffv1"),
    "prores": CodecRow("prores_ks", "prores"),
    "h264_nvenc": _nvenc("h264", "yuv420p", "yuv444p"),
    "hevc_nvenc": _nvenc("hevc", "yuv420p", "p010le", "yuv444p"),
    "av1_nvenc": _nvenc("av1", "yuv420p", "p010le"),
    "h264_qsv": _quick_sync("h264", "nv12"),
    "hevc_qsv": _quick_sync("hevc", "nv12", "p010le"),
    "av1_qsv": _quick_sync("av1", "nv12", "p010le"),
    "h264_amf": _amf("h264", "yuv420p"),
    "hevc_amf": _amf("hevc", "yuv420p", "p010le"),
    "av1_amf": _amf("av1", "yuv420p", "p010le"),
    "h264_videotoolbox": _video_toolbox("h264", "yuv420p"),
    "hevc_videotoolbox": _video_toolbox("hevc", "yuv420p", "p010le"),
}  # fmt: skip

#: Those that run on any machine: what is chosen from where the user names none.
SOFTWARE = tuple(name for name, row in CODECS.items() if not row.hardware)
