"""The options of a training run, by section; unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(gt=0.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def _within(low: float, high: float) -> AfterValidator:
    """Check that both ends of a range lie in ``low..high``."""

    def check(ends: tuple[float, float]) -> tuple[float, float]:
        if not low <= ends[0] <= ends[1] <= high:
            raise PydanticCustomError(
                "range",
                "give two numbers, the smaller first, in {low}..{high}",
                {"low": low, "high": high},
            )
        return ends

    return AfterValidator(check)


IntRange = tuple[int, int]
Range = tuple[float, float]
Crf51 = Annotated[IntRange, _within(0, 51)]
Crf63 = Annotated[IntRange, _within(1, 63)]
Quality = Annotated[IntRange, _within(1, 100)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkConfig(_Section):
    """The network to train; see :class:`paragonsr2.network.generator.ParagonSR2`."""

    variant: Literal["realtime", "stream", "photo", "pro"]
    scale: Literal[2, 3, 4, 8]
    upsampler_alpha: float = Field(0.0, ge=0.0, le=1.0)
    expansion: Positive = 2
    pretrain: Path | None = Field(None, description="checkpoint to start from")
    int8: bool = Field(
        False,
        description="train the deployed form as an 8-bit engine computes it; needs pretrain",
    )
    checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: slower, less memory"
    )

    @model_validator(mode="after")
    def _int8_comes_last(self) -> Self:
        if self.int8 and self.pretrain is None:
            raise PydanticCustomError("int8", "int8 is a last stage: set pretrain")
        return self


class Folder(_Section):
    """A folder of pictures, read recursively; in TOML a path, or a table with these keys."""

    path: Path = Field(description="high-resolution pictures")
    lr: Path | None = Field(
        None, description="their low-resolution partners, with the same file names"
    )
    weight: Weight = Field(
        1.0, description="how often a pixel of this folder is sampled, relative to others"
    )
    shrink: Annotated[int, Field(ge=1, le=8)] = Field(
        1,
        description="reduce the pictures to 1/shrink of their size; at 2, JPEG and lossy WebP "
        "have as much detail in colour as in brightness",
    )

    @model_validator(mode="after")
    def _partners_keep_their_size(self) -> Self:
        if self.lr is not None and self.shrink > 1:
            raise PydanticCustomError("shrink", "pictures with partners cannot be shrunk")
        return self

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name if self.shrink == 1 else f"{self.path.name} at 1/{self.shrink}"


def _as_table(value: Any) -> Any:
    return {"path": value} if isinstance(value, (str, Path)) else value


FolderOrPath = Annotated[Folder, BeforeValidator(_as_table, json_schema_input_type=str | Folder)]


class Growth(_Section):
    """Batch and crop size from a step on."""

    step: Positive = Field(description="first step with these sizes; the first step of a run is 0")
    patch: Positive = Field(description="side of a crop in low-resolution pixels")
    batch: Positive = Field(description="crops per step, over all processes")


class DataConfig(_Section):
    """Where pictures come from and how crops are cut."""

    train: list[FolderOrPath] = Field(
        min_length=1, description="folders: paths, or tables with path, lr, weight and shrink"
    )
    val: FolderOrPath = Field(description="folder of held-out pictures for validation")
    lr: Path | None = Field(
        None, description="low-resolution partners, where there is only one train folder"
    )
    drawn: int = Field(
        0,
        ge=0,
        description="number of drawn pictures (text, shapes, curves) to train on; one half is "
        "drawn at low resolution, too, instead of shrunk",
    )
    drawn_weight: Weight = Field(
        1.0, description="how often a pixel of these is sampled, relative to others"
    )
    val_drawn: int = Field(
        0,
        ge=0,
        description="number of drawn pictures to validate on, the same in every run; scored "
        "separately, so they do not choose the best checkpoint",
    )
    grain: float = Field(
        0.0,
        ge=0.0,
        le=50.0,
        description="largest deviation, of 255, of the noise that every fourth low-resolution crop "
        "gets, so that the noise of a camera on flat ground is not sharpened",
    )
    patch: Positive = Field(48, description="side of a crop in low-resolution pixels")
    batch: Positive = Field(16, description="crops per step, over all processes")
    grow: list[Growth] = Field(
        [], description="other batch and crop sizes later, by ascending step"
    )
    licence: str = Field("", description="licence of the pictures, stored with the weights")
    storage: Literal["auto", "memory", "mapped", "files"] = Field(
        "auto",
        description="memory: decoded, in memory; mapped: decoded, memory-mapped from the cache; "
        "files: decoded anew for each crop; auto: memory if the pictures fit, else mapped",
    )
    memory_gb: float = Field(
        8.0, gt=0.0, description="most memory storage = auto takes, over all processes"
    )
    cache: Path | None = Field(
        None, description="folder for decoded pictures and clips; default: cache/ in run.output"
    )
    cache_lr: bool = Field(False, description="also keep low-resolution pictures in the cache")
    workers: Positive = Field(2, description="threads that prepare batches, per process")

    @property
    def folders(self) -> list[Folder]:
        """The training folders with their low-resolution partners."""
        return [self.train[0].model_copy(update={"lr": self.lr})] if self.lr else self.train

    @property
    def largest_patch(self) -> int:
        """Side of the largest crop of the run, in low-resolution pixels."""
        return max([self.patch, *(stage.patch for stage in self.grow)])

    def crops_at(self, step: int) -> tuple[int, int]:
        """Batch size and crop side at ``step``."""
        batch, patch = self.batch, self.patch
        for stage in self.grow:
            if stage.step <= step:
                batch, patch = stage.batch, stage.patch
        return batch, patch

    @model_validator(mode="after")
    def _grows_in_order(self) -> DataConfig:
        steps = [stage.step for stage in self.grow]
        if steps != sorted(set(steps)):
            raise PydanticCustomError("grow", "list the stages of grow by ascending step")
        return self

    @model_validator(mode="after")
    def _lr_belongs_to_one_folder(self) -> DataConfig:
        if self.lr is not None and (len(self.train) != 1 or self.train[0].lr is not None):
            raise PydanticCustomError(
                "lr",
                "lr needs exactly one train folder; with several, give lr in each folder's table",
            )
        return self


class CodecConfig(_Section):
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
    frames: Annotated[IntRange, _within(1, 64)] = Field(
        (3, 8), description="frames per clip; one of the later half becomes the low resolution"
    )
    side: Annotated[IntRange, _within(64, 2048)] = Field(
        (192, 320), description="side of a clip in low-resolution pixels"
    )
    pan: float = Field(2.5, ge=0.0, description="largest motion per frame in low-resolution pixels")
    zoom: float = Field(
        0.01, ge=0.0, le=0.1, description="largest relative change of size per frame"
    )


class BlindStage(_Section):
    """One round of blur, resizing, noise and JPEG.

    The defaults are milder than those of Real-ESRGAN, which are made for x4: at x2 its smallest
    intermediate pictures would have a third of the low resolution.
    """

    blur: Probability = 1.0
    sigma: Annotated[Range, _within(0.05, 20.0)] = Field(
        (0.2, 2.0), description="standard deviation of the blur in pixels"
    )
    sinc: Probability = Field(
        0.1, description="share of blur kernels that are sinc filters, which ring"
    )
    enlarge: Probability = Field(0.2, description="share of pictures that are enlarged")
    shrink: Probability = Field(0.7, description="share that are shrunk")
    resize: Annotated[Range, _within(0.05, 4.0)] = Field(
        (0.4, 1.5), description="smallest and largest scale factor"
    )
    gaussian: Probability = Field(
        0.5, description="share of Gaussian noise; the rest is Poisson noise"
    )
    noise: Annotated[Range, _within(0.0, 255.0)] = Field(
        (1.0, 20.0), description="standard deviation of Gaussian noise in 0..255"
    )
    poisson: Annotated[Range, _within(0.0, 10.0)] = Field(
        (0.05, 2.0), description="strength of Poisson noise; 1 is one photon per 8-bit level"
    )
    grey: Probability = Field(0.4, description="share of noise that is grey")
    jpeg: Quality = Field((30, 95), description="quality, 1..100")


class SecondBlindStage(BlindStage):
    """The second, milder round; its scale factors are relative to the low resolution."""

    blur: Probability = 0.8
    sigma: Annotated[Range, _within(0.05, 20.0)] = (0.2, 1.0)
    enlarge: Probability = 0.3
    shrink: Probability = 0.4
    resize: Annotated[Range, _within(0.05, 4.0)] = (0.6, 1.2)
    noise: Annotated[Range, _within(0.0, 255.0)] = (1.0, 12.0)
    poisson: Annotated[Range, _within(0.0, 10.0)] = (0.05, 1.2)


class BlindConfig(_Section):
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


class DegradationConfig(_Section):
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


class ScheduleConfig(_Section):
    """Linear warm-up, then cosine decay from ``lr`` to ``final_lr``."""

    steps: Positive
    optimizer: Literal["adam", "muon"] = Field(
        "adam", description="muon: Muon for kernels that mix channels, Adam for the rest"
    )
    lr: float = Field(1e-3, gt=0.0)
    final_lr: float = Field(1e-6, ge=0.0)
    warmup: int = Field(500, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = Field(1.0, gt=0.0, description="largest norm of the gradient")
    accumulate: Positive = Field(
        1, description="number of parts a batch is split into to save memory"
    )
    ema: float = Field(0.999, ge=0.0, lt=1.0, description="decay of the averaged weights")


class LossTerm(_Section):
    """When a loss term counts, and how much."""

    weight: float = Field(1.0, gt=0.0, description="factor of the term in the sum")
    start: int = Field(0, ge=0, description="first step with the term")
    ramp: int = Field(0, ge=0, description="steps over which the weight rises from 0")
    end: int | None = Field(
        None, ge=1, description="first step without the term; default: it stays"
    )

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.end is not None and self.end <= self.start:
            raise PydanticCustomError("loss", "end must come after start")
        return self


class PixelTerm(LossTerm):
    """Distance per pixel, on RGB and, for the share ``luma``, on luma alone."""

    kind: Literal["l1", "charbonnier", "mse", "psnr"] = "l1"
    luma: float = Field(0.0, ge=0.0, le=1.0, description="share of the term taken on luma")


class GridTerm(LossTerm):
    """Distance of the local means of the pixels of each phase, which a regular pattern moves."""

    period: int = Field(4, ge=2, le=8, description="of the pattern, in pixels: usually the scale")


class BlockTerm(LossTerm):
    """Distance of the steps at the borders of blocks, which a picture stored as JPEG has."""

    period: int = Field(
        16, ge=8, le=64, description="side of a block in the output: 8 times the scale for JPEG"
    )


class AdversarialTerm(LossTerm):
    """The adversarial loss; see ``[discriminator]``."""

    kind: Literal["nonsaturating", "hinge", "relativistic"] = "relativistic"
    r1: float = Field(0.0, ge=0.0, description="penalty on a steep discriminator, on originals")
    r2: float = Field(0.0, ge=0.0, description="the same on generated pictures")
    penalty_crops: Positive | None = Field(
        None, description="crops of a batch that the penalties look at; default: all"
    )


class LossConfig(_Section):
    """The terms of the generator's loss; a missing term is off."""

    pixel: PixelTerm | None = None
    finish: PixelTerm | None = Field(
        None, description="a second pixel term that replaces the first, by start and end"
    )
    ms_ssim: LossTerm | None = Field(None, description="1 - multi-scale structural similarity")
    frequency: LossTerm | None = Field(None, description="L1 of log-magnitudes of the spectra")
    gradient: LossTerm | None = Field(None, description="L1 of differences between neighbours")
    lpips: LossTerm | None = Field(None, description="LPIPS of pyiqa, on AlexNet")
    dists: LossTerm | None = Field(None, description="DISTS of pyiqa, on VGG-16")
    allow_download: bool = Field(
        False, description="download the weights of lpips and dists if they are not cached"
    )
    efficientnet: LossTerm | None = Field(
        None, description="squared distance in the features of EfficientNet-Lite2"
    )
    grid: GridTerm | None = Field(
        None, description="L1 of the local means of each phase: no pattern of the pixel shuffle"
    )
    blocks: BlockTerm | None = Field(
        None, description="L1 of the steps at each place of a grid: no blocks are left of a JPEG"
    )
    artefact: LossTerm | None = Field(None, description="L1 where an artefact is likely (LDL)")
    features: LossTerm | None = Field(None, description="L1 of the discriminator's features")
    adversarial: AdversarialTerm | None = None

    @model_validator(mode="after")
    def _has_an_opponent(self) -> Self:
        if self.features is not None and self.adversarial is None:
            raise PydanticCustomError(
                "loss", "features come from the discriminator; add loss.adversarial"
            )
        return self

    @model_validator(mode="after")
    def _learns_from_the_first_step(self) -> Self:
        terms = [term for name in type(self).model_fields if (term := self.term(name)) is not None]
        if not any(term.start == 0 and term.ramp == 0 for term in terms):
            raise PydanticCustomError(
                "loss", "no term counts in the first steps; give one of them start = 0 and ramp = 0"
            )
        ends = [term.end for term in terms]
        for end in ends:
            if end is not None and not any(
                term.start + (term.ramp > 0) <= end and (term.end is None or term.end > end)
                for term in terms
            ):
                raise PydanticCustomError("loss", "no term counts after step {end}", {"end": end})
        return self

    @property
    def perceptual(self) -> bool:
        """Whether a term judges how a picture looks, beyond its pixels."""
        judges = (self.adversarial, self.lpips, self.dists, self.efficientnet)
        return any(term is not None for term in judges)

    def term(self, name: str) -> LossTerm | None:
        """The term with this key; None if it is off."""
        term = getattr(self, name)
        return term if isinstance(term, LossTerm) else None


Branch = Literal["spatial", "gradient", "frequency", "patch"]


class DiscriminatorConfig(_Section):
    """MUNet, in runs with ``loss.adversarial``; see :class:`paragonsr2.network.MUNet`."""

    num_feat: Positive | None = Field(None, description="width; default: the variant's")
    ch_mult: list[Positive] | None = Field(
        None, description="widths of the levels; default: the variant's"
    )
    branches: list[Branch] = Field(["spatial", "gradient", "frequency", "patch"])
    lr: float = Field(2e-4, gt=0.0, description="learning rate; it decays as the generator's does")
    betas: tuple[float, float] = (0.5, 0.99)
    lead: int = Field(500, ge=0, description="steps it trains before loss.adversarial starts")


class RunConfig(_Section):
    """Output folder, device, and how often the run reports."""

    output: Path
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        0, description="decides every random choice"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fastest", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto: bf16 on a GPU that has it, else fp32; fastest: bf16 on a CPU with "
        "bfloat16 instructions, too",
    )
    compile: bool = Field(False, description="compile the generator with torch.compile")
    threads: int = Field(0, ge=0, description="CPU threads; 0 = all")
    log_every: Positive = 100
    validate_every: Positive = 2000
    checkpoint_minutes: float = Field(5.0, gt=0.0)


class TrainConfig(_Section):
    """All sections of a run."""

    network: NetworkConfig
    data: DataConfig
    degradation: DegradationConfig = DegradationConfig.model_validate({})
    schedule: ScheduleConfig
    loss: LossConfig = LossConfig.model_validate({"pixel": {}})
    discriminator: DiscriminatorConfig = DiscriminatorConfig.model_validate({})
    run: RunConfig
