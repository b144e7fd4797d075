"""The options of a training run, by section; unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from paragonsr2.training.config_types import Positive, Section, Weight
from paragonsr2.training.degradation_config import DegradationConfig
from paragonsr2.training.loss_config import LossConfig


class NetworkConfig(Section):
    """The network to train; see :class:`paragonsr2.network.generator.ParagonSR2`."""

    variant: Literal["realtime", "stream", "photo", "pro"]
    scale: Literal[2, 3, 4, 8]
    upsampler_alpha: float = Field(0.0, ge=0.0, le=1.0)
    expansion: int = Field(
        2,
        ge=0,
        description="width of the 3x3 convolutions while they are trained, as a multiple of their "
        "input; 0 trains them as they deploy, which is faster",
    )
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


class Folder(Section):
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


class Growth(Section):
    """Batch and crop size from a step on."""

    step: Positive = Field(description="first step with these sizes; the first step of a run is 0")
    patch: Positive = Field(description="side of a crop in low-resolution pixels")
    batch: Positive = Field(description="crops per step, over all processes")


class DataConfig(Section):
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


class ScheduleConfig(Section):
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


Branch = Literal["spatial", "gradient", "frequency", "patch"]


class DiscriminatorConfig(Section):
    """MUNet, in runs with ``loss.adversarial``; see :class:`paragonsr2.network.MUNet`."""

    num_feat: Positive | None = Field(None, description="width; default: the variant's")
    ch_mult: list[Positive] | None = Field(
        None, description="widths of the levels; default: the variant's"
    )
    branches: list[Branch] = Field(["spatial", "gradient", "frequency", "patch"])
    lr: float = Field(2e-4, gt=0.0, description="learning rate; it decays as the generator's does")
    betas: tuple[float, float] = (0.5, 0.99)
    lead: int = Field(500, ge=0, description="steps it trains before loss.adversarial starts")


class RunConfig(Section):
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


class TrainConfig(Section):
    """All sections of a run."""

    network: NetworkConfig
    data: DataConfig
    degradation: DegradationConfig = DegradationConfig.model_validate({})
    schedule: ScheduleConfig
    loss: LossConfig = LossConfig.model_validate({"pixel": {}})
    discriminator: DiscriminatorConfig = DiscriminatorConfig.model_validate({})
    run: RunConfig
