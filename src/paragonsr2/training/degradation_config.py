"""The options of how training pictures are degraded, by section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from paragonsr2.training.config_types import (
    Crf51,
    Crf63,
    IntRange,
    Positive,
    Probability,
    Quality,
    Range,
    Section,
    Weight,
    within,
)


class CodecConfig(Section):
    """Compressed video and pictures; see :mod:`paragonsr2.training.video_degradation`."""

    mix: dict[Literal["h264", "hevc", "vp9", "av1", "jpeg", "webp", "avif"], Weight] = Field(
        default={
            "h264": 0.4, "hevc": 0.15, "vp9": 0.15, "av1": 0.1, "jpeg": 0.1, "webp": 0.05,
            "avif": 0.05,
        },
        min_length=1,
        description="how often each codec is used, relative to the others",
    )  # fmt: skip
    h264_crf: Crf51 = Field((18, 38), description="constant rate factor, 0..51")
    hevc_crf: Crf51 = Field((20, 40), description="constant rate factor, 0..51")
    vp9_crf: Crf63 = Field((26, 56), description="constant rate factor, 1..63")
    av1_crf: Crf63 = Field((26, 58), description="constant rate factor, 1..63")
    jpeg_quality: Quality = Field((25, 95), description="1..100")
    webp_quality: Quality = Field((25, 95), description="1..100")
    avif_quality: Quality = Field((25, 90), description="1..100")
    yuv444: Probability = Field(
        0.1, description="probability of 4:4:4, where the codec supports it; else 4:2:0"
    )
    frames: Annotated[IntRange, within(1, 64)] = Field(
        (3, 8), description="frames per clip; one of the later half becomes the low resolution"
    )
    side: Annotated[IntRange, within(64, 2048)] = Field(
        (192, 320), description="side of a clip in low-resolution pixels"
    )
    pan: float = Field(2.5, ge=0.0, description="largest motion per frame in low-resolution pixels")
    zoom: float = Field(
        0.01, ge=0.0, le=0.1, description="largest relative change of size per frame"
    )
    soft: Probability = Field(
        0.0,
        description="share of clips that were smaller once, and were enlarged before they were "
        "stored: soft lines, as in much of old film",
    )
    soft_by: Annotated[Range, within(1.0, 4.0)] = Field(
        (1.2, 2.2), description="by what factor those clips were smaller"
    )


class BlindStage(Section):
    """One round of blur, resizing, noise and JPEG.

    The defaults are milder than those of Real-ESRGAN, which are made for x4: at x2 its smallest
    intermediate pictures would have a third of the low resolution.
    """

    blur: Probability = 1.0
    sigma: Annotated[Range, within(0.05, 20.0)] = Field(
        (0.2, 2.0), description="standard deviation of the blur in pixels"
    )
    sinc: Probability = Field(
        0.1, description="share of blur kernels that are sinc filters, which ring"
    )
    enlarge: Probability = Field(0.2, description="share of pictures that are enlarged")
    shrink: Probability = Field(0.7, description="share that are shrunk")
    resize: Annotated[Range, within(0.05, 4.0)] = Field(
        (0.4, 1.5), description="smallest and largest scale factor"
    )
    gaussian: Probability = Field(
        0.5, description="share of Gaussian noise; the rest is Poisson noise"
    )
    noise: Annotated[Range, within(0.0, 255.0)] = Field(
        (1.0, 20.0), description="standard deviation of Gaussian noise in 0..255"
    )
    poisson: Annotated[Range, within(0.0, 10.0)] = Field(
        (0.05, 2.0), description="strength of Poisson noise; 1 is one photon per 8-bit level"
    )
    grey: Probability = Field(0.4, description="share of noise that is grey")
    jpeg: Quality = Field((30, 95), description="quality, 1..100")


class SecondBlindStage(BlindStage):
    """The second, milder round; its scale factors are relative to the low resolution."""

    blur: Probability = 0.8
    sigma: Annotated[Range, within(0.05, 20.0)] = (0.2, 1.0)
    enlarge: Probability = 0.3
    shrink: Probability = 0.4
    resize: Annotated[Range, within(0.05, 4.0)] = (0.6, 1.2)
    noise: Annotated[Range, within(0.0, 255.0)] = (1.0, 12.0)
    poisson: Annotated[Range, within(0.0, 10.0)] = (0.05, 1.2)


class BlindConfig(Section):
    """Blind degradation; see :mod:`paragonsr2.training.degradations`."""

    first: BlindStage = BlindStage.model_validate({})
    second: SecondBlindStage = SecondBlindStage.model_validate({})
    final_sinc: Probability = Field(
        0.8, description="share of pictures with a sinc filter at the end"
    )
    plain: Probability = Field(
        0.0,
        description="share that is only shrunk, and stored as JPEG with a quality of the second "
        "round: what most pictures have been through",
    )


class DegradationConfig(Section):
    """How low-resolution pictures are made."""

    kind: Literal["bicubic", "blind", "codec"] = Field(
        "bicubic",
        description="bicubic: as MATLAB resizes; blind: two rounds of blur, resizing, noise and "
        "JPEG; codec: bicubic, then a real encoder and decoder",
    )
    clean: Probability = Field(0.1, description="share of crops that are only resized")
    cached_clips: Positive = Field(
        2000, description="codec: number of clips that the first start encodes"
    )
    cached_regions: int = Field(
        0,
        ge=0,
        description="blind: number of regions of 224x224 that the first start degrades; crops are "
        "cut from them. 0 degrades each crop anew, which takes longer than a step on a CPU",
    )
    codec: CodecConfig = CodecConfig.model_validate({})
    blind: BlindConfig = BlindConfig.model_validate({})
