"""The options of the loss, by term."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from paragonsr2.training.config_types import Positive, Section


class LossTerm(Section):
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


class LossConfig(Section):
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
