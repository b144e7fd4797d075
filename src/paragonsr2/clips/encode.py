"""Choosing an encoder's settings, and encoding frames in closed, reproducible segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.codec import Codec, CodecContext
from av.codec.codec import UnknownCodecError
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.frame import VideoFrame

from paragonsr2.clips.clip import RGB, UNTAGGED, Clip, Mastering, guessed_matrix
from paragonsr2.clips.codecs import CODECS, DEFAULT_QUALITY, SOFTWARE, CodecRow
from paragonsr2.clips.container import reason
from paragonsr2.clips.instructions import x264_instructions
from paragonsr2.clips.opening import opening_encoder
from paragonsr2.errors import OptionError, OutputError

# The output of some encoders depends on the number of threads. A fixed number gives the same
# bytes on every machine.
_THREADS = 4


@dataclass(frozen=True)
class Encoding:
    """The complete settings of an encoder. Equal settings and frames give equal bytes.

    Attributes:
        codec: a key of :data:`~paragonsr2.clips.codecs.CODECS`.
        pixel_format: FFmpeg's name.
        width, height: frame size in pixels.
        rate: average frames per second.
        time_base: length of one tick in seconds.
        sample_aspect_ratio: pixel aspect ratio; None if unspecified.
        colour: primaries, transfer, matrix and range, in the numbering of H.273 and FFmpeg.
        options: options of the encoder.
        global_header: parameter sets are stored in the container's header.
        gop: maximum distance of key frames, in frames.
    """

    codec: str
    pixel_format: str
    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    sample_aspect_ratio: Fraction | None
    colour: tuple[int, int, int, int]
    options: Mapping[str, str]
    global_header: bool
    gop: int


@dataclass(frozen=True)
class CodedPacket:
    """One coded frame.

    Attributes:
        pts: presentation time in ticks.
        duration: in ticks.
        key: it is a key frame.
        data: the coded bytes.
    """

    pts: int
    duration: int
    key: bool
    data: bytes


def choose_codec(clip: Clip, allowed: tuple[str, ...]) -> str:
    """The codec to use if the user names none.

    It is the clip's own codec if that can be written and can hold the clip's pixel format.
    Otherwise it is H.264 for 8 bits, HEVC for more, or FFV1 if neither can hold the clip (alpha).

    Args:
        clip: the source.
        allowed: the codecs that the container can hold.
    """
    deep = clip.depth > 8
    preferred = (clip.codec, "hevc" if deep else "h264", "hevc", "av1", "prores", "ffv1")
    fitting = [name for name in preferred if name in allowed and _loss(name, clip) == ""]
    possible = [name for name in preferred if name in allowed]
    return (fitting or possible or ["ffv1"])[0]


def _formats(codec: str) -> Sequence[str]:
    if CODECS[codec].formats:
        return CODECS[codec].formats
    return [item.name for item in Codec(CODECS[codec].encoder, "w").video_formats or ()]


def _loss(codec: str, clip: Clip) -> str:
    """What the clip's pixel format would lose in this codec, in words; empty if nothing."""
    return _best_format(codec, clip)[1]


def _best_format(codec: str, clip: Clip) -> tuple[str, str]:
    """The smallest pixel format of the codec that can hold the clip's, and what it loses."""
    wanted = _shape(clip.pixel_format)
    # FFmpeg decodes ProRes 4444 to 12 bits whatever was coded, and cannot encode more than 10.
    depth = min(wanted.depth, 10) if clip.codec == codec == "prores" else wanted.depth
    scored: list[tuple[tuple[float, ...], str, str]] = []
    for name in _formats(codec):
        listed = name in CODECS[codec].formats
        if not listed and name.startswith(("yuvj", "nv", "gray", "ya", "rgb")):
            continue
        if name.endswith("be"):
            continue
        if "f" in name.removeprefix("yuv").removesuffix("le"):  # floats
            continue
        have = _shape(name)
        lost: list[str] = []
        if have.depth < depth:
            lost.append(f"{depth} bit")
        if have.across > wanted.across or have.down > wanted.down:
            lost.append(f"{wanted.sampling} chroma")
        if wanted.alpha and not have.alpha:
            lost.append("alpha")
        spare = (
            float(have.rgb != wanted.rgb),
            float(have.alpha != wanted.alpha),
            abs(have.depth - depth),
            abs(have.across - wanted.across) + abs(have.down - wanted.down),
        )
        scored.append(((float(len(lost)), *spare), name, " and ".join(lost)))
    _, name, lost_text = min(scored)
    return name, lost_text


@dataclass(frozen=True)
class _Shape:
    depth: int
    across: int
    down: int
    alpha: bool
    rgb: bool

    @property
    def sampling(self) -> str:
        names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0"}
        return names.get((self.across, self.down), "subsampled")


def _shape(name: str) -> _Shape:
    side = 64
    video_format = av.VideoFormat(name, side, side)
    components = video_format.components
    # PyAV calls a plane chroma only if it is smaller than luma.
    chroma = [part for part in components if part.is_chroma]
    if chroma:
        across, down = side // chroma[0].width, side // chroma[0].height
    else:
        # Grey can be stored with the coarsest chroma; three full planes are 4:4:4 or RGB.
        across, down = (2, 2) if len(components) < 3 else (1, 1)
    return _Shape(
        depth=max(part.bits for part in components),
        across=across,
        down=down,
        alpha=any(part.is_alpha for part in components),
        rgb=video_format.is_rgb,
    )


def plan_encoding(
    clip: Clip,
    scale: int,
    codec: str,
    *,
    quality: int | None = None,
    preset: str | None = None,
    extra: Mapping[str, str] | None = None,
    gop: int,
    global_header: bool,
) -> Encoding:
    """Choose every setting of the encoder.

    Args:
        clip: the source.
        scale: enlargement.
        codec: a key of :data:`~paragonsr2.clips.codecs.CODECS`.
        quality: 1..100, higher is better; None for
            :data:`~paragonsr2.clips.codecs.DEFAULT_QUALITY`.
        preset: a preset of the encoder; None for the default.
        extra: more options of the encoder, by FFmpeg's names; they go before the usual ones.
        gop: maximum distance of key frames, in frames.
        global_header: see :class:`Encoding`.

    Raises:
        OptionError: the codec, preset or option does not exist, or the codec cannot keep the
            clip's depth, chroma sampling, alpha or size.
    """
    row = _checked_row(codec, quality, preset)
    pixel_format, lost = _best_format(codec, clip)
    if lost:
        fit = [name for name in SOFTWARE if _loss(name, clip) == ""]
        raise OptionError(
            f"{codec} cannot keep {lost} of {clip.path.name}; use --codec {' or '.join(fit)}"
        )
    width, height = clip.width * scale, clip.height * scale
    shape = _shape(pixel_format)
    if row.stream in ("h264", "hevc") and (width % shape.across or height % shape.down):
        raise OptionError(
            f"{codec} cannot store {width}x{height} in {shape.sampling}; "
            f"use --codec ffv1 or an even --scale"
        )
    return Encoding(
        codec=codec,
        pixel_format=pixel_format,
        width=width,
        height=height,
        rate=clip.rate or Fraction(25),
        time_base=clip.time_base,
        sample_aspect_ratio=clip.sample_aspect_ratio,
        colour=_colour_tags(clip, width, height, rgb=shape.rgb),
        options=_options(
            codec, quality or DEFAULT_QUALITY, preset or row.preset, extra or {}, gop, clip
        ),
        global_header=global_header,
        gop=gop,
    )


def _checked_row(codec: str, quality: int | None, preset: str | None) -> CodecRow:
    if codec not in CODECS:
        raise OptionError(f"unknown codec '{codec}'; choose from {', '.join(CODECS)}")
    row = CODECS[codec]
    if preset is not None and preset not in row.presets:
        known = f"choose from {', '.join(row.presets)}" if row.presets else "it has no presets"
        raise OptionError(f"{codec} has no preset '{preset}'; {known}")
    if quality is not None and not 1 <= quality <= 100:
        raise OptionError(f"video quality {quality} is not in 1..100")
    try:
        Codec(row.encoder, "w")
    except UnknownCodecError:
        raise OptionError(
            f"this FFmpeg has no encoder {row.encoder}; use --codec {row.stream}"
        ) from None
    return row


def _colour_tags(clip: Clip, width: int, height: int, *, rgb: bool) -> tuple[int, int, int, int]:
    """Tags of the result; see :class:`Encoding`."""
    colour, matrix = clip.colour, clip.colour.matrix
    guess = guessed_matrix(clip.width, clip.height)
    if rgb:
        matrix = RGB
    elif matrix == RGB or (matrix == UNTAGGED and guess != guessed_matrix(width, height)):
        # An untagged clip that grows from SD to HD would be displayed with the other matrix.
        matrix = guess
    span = {None: 0, False: 1, True: 2}[colour.full_range]
    return colour.primaries, colour.transfer, matrix, span


def _options(
    codec: str, quality: int, preset: str, extra: Mapping[str, str], gop: int, clip: Clip
) -> dict[str, str]:
    row = CODECS[codec]
    crf = row.crf * (100 - quality) / 100
    options = {
        key: value.format(crf=crf, lambda_quality=118 * quality) for key, value in row.rate.items()
    }
    if preset:
        options[row.preset_option] = preset
    own = dict(_own_parameters(codec, clip.mastering, gop))
    parameters = [f"{key}={value}" for key, value in own.items()]
    if codec == "ffv1":
        options |= {"level": "3", "slices": "4", "slicecrc": "1"}
    if codec == "prores":
        deep_chroma = _shape(_best_format(codec, clip)[0]).across == 1
        options |= {"profile": "4444" if deep_chroma else "hq", "vendor": "apl0"}
    options |= extra
    if parameters:
        # The last of several values counts.
        given = [extra[row.parameters]] if row.parameters in extra else []
        options[row.parameters] = ":".join([*parameters, *given])
    return options


def _own_parameters(codec: str, mastering: Mastering, gop: int) -> Iterator[tuple[str, str]]:
    if codec == "hevc":
        yield from {"log-level": "none", "open-gop": "0", "frame-threads": "2"}.items()
        yield from {"keyint": str(gop), "repeat-headers": "0"}.items()
    if codec == "h264":
        yield from {"open-gop": "0", "keyint": str(gop), **x264_instructions()}.items()
    if codec not in ("h264", "hevc", "av1"):
        return
    # x264 and x265 expect chromaticities in 1/50000 and luminance in 1/10000.
    whole = codec != "av1"

    def chroma(pair: tuple[Fraction, Fraction]) -> str:
        return ",".join(str(round(v * 50000)) if whole else f"{float(v):.5f}" for v in pair)

    if mastering.primaries is not None and mastering.luminance is not None:
        red, green, blue, white = map(chroma, mastering.primaries)
        lowest, highest = (
            str(round(v * 10000)) if whole else f"{float(v):.4f}" for v in mastering.luminance
        )
        yield (
            "master-display" if codec == "hevc" else "mastering-display",
            f"G({green})B({blue})R({red})WP({white})L({highest},{lowest})",
        )
    if mastering.light is not None:
        name = {"hevc": "max-cll", "h264": "cll", "av1": "content-light"}[codec]
        yield name, f"{mastering.light[0]},{mastering.light[1]}"


def configure(context: Any, encoding: Encoding) -> None:
    """Apply the settings to an encoder context that is not open yet."""
    context.width, context.height = encoding.width, encoding.height
    context.pix_fmt = encoding.pixel_format
    context.time_base = encoding.time_base
    context.framerate = encoding.rate
    if encoding.sample_aspect_ratio is not None:
        context.sample_aspect_ratio = encoding.sample_aspect_ratio
    context.color_primaries, context.color_trc, context.colorspace, context.color_range = (
        encoding.colour
    )
    context.thread_count = _THREADS
    context.gop_size = encoding.gop
    # Version strings and dates in the stream would make the bytes differ between runs.
    context.flags |= Flags.bitexact
    if encoding.global_header:
        context.flags |= Flags.global_header
    context.options = dict(encoding.options)
    if CODECS[encoding.codec].stream == "hevc":
        # Apple's players accept HEVC only with this tag.
        context.codec_tag = "hvc1"


class SegmentEncoder:
    """Encodes a run of frames that can be decoded on its own.

    Equal frames and settings give equal bytes.

    Args:
        encoding: the settings.

    Raises:
        OptionError: the encoder does not know an option.
        OutputError: the encoder rejects the settings, or its hardware is missing.
    """

    def __init__(self, encoding: Encoding) -> None:
        row = CODECS[encoding.codec]
        context: Any = CodecContext.create(row.encoder, "w")
        configure(context, encoding)
        self._context = context
        self._time_base = encoding.time_base
        self._durations: dict[int, int] = {}
        with opening_encoder():
            try:
                self._guard(context.open)
            except OutputError as error:
                if not row.hardware:
                    raise
                raise OutputError(
                    f"{error}; it needs its hardware and driver, --codec {row.stream} does not"
                ) from error
        # What is left here was understood by nobody.
        if unknown := sorted(context.options):
            raise OptionError(f"the encoder {row.encoder} has no option {', '.join(unknown)}")

    @property
    def header(self) -> bytes:
        """The parameter sets in the form that a container's header stores."""
        return self._context.extradata or b""

    def encode(self, frame: VideoFrame, pts: int, duration: int) -> list[CodedPacket]:
        """Encode a frame; the packets returned may belong to earlier frames.

        Raises:
            OutputError: the encoder failed.
        """
        frame.pts, frame.time_base = pts, self._time_base
        frame.duration = duration
        # A frame keeps the type it had in the source; 0 lets the encoder choose.
        frame.pict_type = 0
        self._durations[pts] = duration
        return self._packets(frame)

    def finish(self) -> list[CodedPacket]:
        """End the segment and return the remaining packets.

        Raises:
            OutputError: the encoder failed.
        """
        return self._packets(None)

    def _packets(self, frame: VideoFrame | None) -> list[CodedPacket]:
        packets = self._guard(lambda: self._context.encode(frame))
        return [
            CodedPacket(
                packet.pts,
                self._durations.pop(packet.pts, 0),
                bool(packet.is_keyframe),
                bytes(packet),
            )
            for packet in packets
        ]

    def _guard(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (FFmpegError, ValueError) as error:
            name = self._context.name
            raise OutputError(f"the encoder {name} failed: {reason(error)}") from error
