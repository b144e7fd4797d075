"""``paragonsr2 upscale``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from paragonsr2.cli.cluster import (
    Cluster,
    RayCpusOption,
    RayGpusOption,
    RayOption,
    RayTransferOption,
    RayWorkersOption,
)
from paragonsr2.cli.doers import Doer, Engine
from paragonsr2.cli.options import (
    MODEL_HELP,
    BackendOption,
    DeviceOption,
    EnsembleOption,
    JsonOption,
    PrecisionOption,
    PurposeOption,
    ScaleOption,
    StrengthOption,
    TileOption,
    TrustOption,
    tile_of,
)
from paragonsr2.cli.report import JobReport
from paragonsr2.cli.streams import Files, standard_streams
from paragonsr2.clips.codecs import DEFAULT_QUALITY as VIDEO_QUALITY
from paragonsr2.clips.codecs import CodecName
from paragonsr2.errors import UsageError
from paragonsr2.images.names import DEFAULT_QUALITY as IMAGE_QUALITY
from paragonsr2.images.names import ImageFormatName

if TYPE_CHECKING:
    from paragonsr2.upscale.pictures import PictureOptions
    from paragonsr2.upscale.task import Task
    from paragonsr2.upscale.video import VideoOptions

_IMAGES, _VIDEO = "Images", "Video"

Inputs = Annotated[
    list[str],
    typer.Argument(
        help="Images, videos, folders (searched recursively), glob patterns, or - for standard "
        "input."
    ),
]
SuitedModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help=f"auto: realtime, and realtime:compressed for coarse JPEGs and clips. {MODEL_HELP}",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="Output file, or folder; - is standard output. Default: beside each input.",
    ),
]
Suffix = Annotated[
    str | None,
    typer.Option(help="Text appended to output names. Default: _x2 (by scale) beside the input."),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace outputs even if they are newer than their input."),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Fail on damaged inputs in place of writing what is left."),
]
Unchecked = Annotated[
    bool,
    typer.Option(
        "--unchecked",
        help="Keep results that cannot be right: all one colour, or of another brightness.",
    ),
]
MaxMegapixels = Annotated[
    float,
    typer.Option(help="Refuse larger images and frames; a small file can claim any size."),
]
AsEvents = Annotated[
    bool,
    typer.Option("--events", help="Print progress and results as JSON, one object per line."),
]
Format = Annotated[
    Literal["keep", ImageFormatName],
    typer.Option("--format", help="Output format of images.", rich_help_panel=_IMAGES),
]
Quality = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        help=f"Quality of lossy images; 100 is lossless in WebP, AVIF and JPEG XL. "
        f"Default: {IMAGE_QUALITY}.",
        rich_help_panel=_IMAGES,
    ),
]
Codec = Annotated[
    Literal["keep", CodecName],
    typer.Option(
        help="Video codec; keep uses the input's own if it can be written.",
        rich_help_panel=_VIDEO,
    ),
]
VideoQuality = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        help=f"Quality of lossy video; see docs/video.md. Default: {VIDEO_QUALITY}.",
        rich_help_panel=_VIDEO,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Preset of the encoder: ultrafast to veryslow, or 0 (slow) to 13 (fast) for av1.",
        rich_help_panel=_VIDEO,
    ),
]
EncoderOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder-option",
        help="An option of the encoder as NAME=VALUE, by FFmpeg's names; may be repeated.",
        rich_help_panel=_VIDEO,
    ),
]
Segment = Annotated[
    int | None,
    typer.Option(
        help="Frames per segment; an interrupted video resumes after the last complete one. "
        "Default: 120.",
        rich_help_panel=_VIDEO,
    ),
]
Temporal = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        help="Reduce flicker between frames; auto does so if OpenCV is installed.",
        rich_help_panel=_VIDEO,
    ),
]


def upscale(
    context: typer.Context,
    inputs: Inputs,
    output: Output = None,
    model: SuitedModelOption = "auto",
    purpose: PurposeOption = None,
    strength: StrengthOption = None,
    scale: ScaleOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    tile: TileOption = "auto",
    ensemble: EnsembleOption = False,
    trust_model: TrustOption = False,
    image_format: Format = "keep",
    quality: Quality = None,
    codec: Codec = "keep",
    video_quality: VideoQuality = None,
    preset: Preset = None,
    encoder_option: EncoderOptions = None,
    segment: Segment = None,
    temporal: Temporal = "auto",
    suffix: Suffix = None,
    overwrite: Overwrite = False,
    strict: Strict = False,
    unchecked: Unchecked = False,
    max_megapixels: MaxMegapixels = 250.0,
    ray: RayOption = None,
    ray_cpus: RayCpusOption = 1.0,
    ray_gpus: RayGpusOption = 0.0,
    ray_workers: RayWorkersOption = None,
    ray_transfer: RayTransferOption = False,
    as_json: JsonOption = False,
    as_events: AsEvents = False,
) -> None:
    """Enlarge images and videos.

    Outputs that are newer than their input are skipped, so that the same command, given again,
    continues an interrupted job.
    """
    if purpose is not None:
        model = _model_for(purpose, scale, context)
    if strength is not None:
        from paragonsr2.weights.source import with_strength

        model = with_strength(model, strength)
    engine = Engine(
        model, scale, backend, device, precision, tile_of(tile), ensemble, trust_model, unchecked
    )
    images = _Images(image_format, quality)
    videos = _Videos(
        codec, video_quality, preset, _encoder_options(encoder_option or []), segment, temporal
    )
    outputs = _Outputs(suffix, overwrite, strict, int(max_megapixels * 1e6))
    cluster = None
    if ray is not None:
        cluster = Cluster(ray, ray_cpus, ray_gpus, ray_workers, ray_transfer)
    pictures, clips = outputs.pictures(images), videos.options(outputs.max_pixels)
    with standard_streams(inputs, output, exclusive=as_json or as_events) as files:
        with ExitStack() as reporting:
            with engine.opened(videos.temporal, cluster) as workers:
                facts = workers.facts
                tasks = _plan(files, facts.scale, images, videos, outputs, ensemble=ensemble)
                shares = engine.shares(tasks, facts, pictures)
                report = reporting.enter_context(
                    JobReport(
                        replace(facts, model=", ".join(shares)),
                        len(tasks),
                        as_json=as_json,
                        as_events=as_events,
                        quiet=files.to_stdout,
                        shown=files.shown,
                    )
                )
                _work(workers, shares.pop(facts.model, []), pictures, clips, report)
            for other, share in shares.items():
                with engine.of(other).opened(videos.temporal, cluster) as workers:
                    _work(workers, share, pictures, clips, report)
        files.deliver(tasks)
    if report.failed:
        raise typer.Exit(1)


def _work(
    workers: Doer,
    tasks: Sequence[Task],
    pictures: PictureOptions,
    clips: VideoOptions,
    report: JobReport,
) -> None:
    if not tasks:
        return
    with workers.running(tasks, pictures, clips, report.progress) as outcomes:
        for outcome in outcomes:
            report.add(outcome, workers.facts.model)


def _model_for(purpose: str, scale: int | None, context: typer.Context) -> str:
    from paragonsr2.weights.purposes import model_for
    from paragonsr2.weights.source import DEFAULT_SCALE

    source = context.get_parameter_source("model")
    if source is not None and source.name != "DEFAULT":
        raise UsageError("--for chooses the model; give --model or --for, not both")
    return model_for(purpose, scale or DEFAULT_SCALE)


@dataclass(frozen=True)
class _Images:
    """How images are written."""

    image_format: str
    quality: int | None


@dataclass(frozen=True)
class _Videos:
    """How videos are written."""

    codec: str
    quality: int | None
    preset: str | None
    encoder_options: Mapping[str, str]
    segment: int | None
    temporal: Literal["auto", "on", "off"]

    def options(self, max_pixels: int) -> VideoOptions:
        """The same, with names and defaults of the library."""
        from paragonsr2.upscale.video import SEGMENT_FRAMES, VideoOptions

        return VideoOptions(
            codec=None if self.codec == "keep" else self.codec,
            quality=self.quality,
            preset=self.preset,
            encoder_options=self.encoder_options,
            segment=SEGMENT_FRAMES if self.segment is None else self.segment,
            temporal=self.temporal,
            max_pixels=max_pixels,
        )


@dataclass(frozen=True)
class _Outputs:
    """How outputs are named, and what is replaced or refused."""

    suffix: str | None
    overwrite: bool
    strict: bool
    max_pixels: int

    def pictures(self, images: _Images) -> PictureOptions:
        """The options of pictures, with names and defaults of the library."""
        from paragonsr2.upscale.pictures import PictureOptions

        quality = IMAGE_QUALITY if images.quality is None else images.quality
        return PictureOptions(self.max_pixels, quality, self.overwrite, self.strict)


def _plan(
    files: Files,
    scale: int,
    images: _Images,
    videos: _Videos,
    outputs: _Outputs,
    *,
    ensemble: bool,
) -> list[Task]:
    """Find the inputs, name the outputs and refuse contradictions before any work is done."""
    from paragonsr2.upscale.naming import plan_tasks, prepare_output

    tasks = plan_tasks(files.inputs, files.output, scale, images.image_format, outputs.suffix)
    _check_qualities(tasks, images.quality, videos.quality)
    if ensemble:
        _refuse_clips(tasks)
    files.check(tasks)
    prepare_output(files.output)
    return tasks


def _check_qualities(tasks: Sequence[Task], quality: int | None, video_quality: int | None) -> None:
    """Refuse a quality that applies to none of the inputs.

    Raises:
        UsageError: naming the flag that was probably meant.
    """
    from paragonsr2.clips.container import is_video

    clips = sum(is_video(task.source) for task in tasks)
    if quality is not None and video_quality is None and clips == len(tasks):
        raise UsageError("--quality is for images; use --video-quality for videos")
    if video_quality is not None and quality is None and clips == 0:
        raise UsageError("--video-quality is for videos; use --quality for images")


def _refuse_clips(tasks: Sequence[Task]) -> None:
    from paragonsr2.clips.container import is_video

    clip = next((task.source for task in tasks if is_video(task.source)), None)
    if clip is not None:
        raise UsageError(f"--ensemble is for images, and {clip} is a video; enlarge it without")


def _encoder_options(texts: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"--encoder-option {text}: write NAME=VALUE")
        options[name] = value
    return options
