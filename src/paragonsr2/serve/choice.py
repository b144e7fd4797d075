"""What strangers may choose: bundled models and classical baselines, never the path of a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from paragonsr2.errors import OptionError
from paragonsr2.images.formats import WRITABLE
from paragonsr2.upscale.by_file import suited_to
from paragonsr2.variants import SCALES, VARIANTS
from paragonsr2.weights.catalogue import entries
from paragonsr2.weights.purposes import AUTO, PURPOSES, USUAL
from paragonsr2.weights.source import with_strength

CLASSICAL = ("bicubic", "magic:1.0")


@dataclass(frozen=True)
class Choice:
    """What someone who sends a picture or a clip has chosen.

    Attributes:
        model: a key of :func:`offered`.
        scale: a scale that the model is offered with.
        image_format: format of the resulting image: ``keep``, or a key of
            :data:`paragonsr2.images.formats.WRITABLE`.
        strength: 0 (faithful) to 1, in hundredths, of a model that has a dial; None is 1.
    """

    model: str
    scale: int
    image_format: str = "keep"
    strength: float | None = None

    @property
    def opened(self) -> str:
        """The model at its strength, as the library calls it."""
        if self.strength is None or self.strength == 1.0:
            return self.model
        return with_strength(self.model, round(self.strength, 2))

    def of(self, file: Path, result_pixels: int) -> Choice:
        """The same for a file: ``auto`` becomes the model that suits it.

        Args:
            file: the picture or clip.
            result_pixels: most that a result may have; larger clips are not looked at.
        """
        if self.model != AUTO:
            return self
        most = result_pixels // self.scale**2
        return replace(self, model=suited_to(file, self.scale, max_pixels=most))

    def check(self) -> None:
        """Check that these choices are offered.

        Raises:
            OptionError: they are not; the message lists what is.
        """
        models = offered()
        if self.model not in models:
            raise OptionError(
                f"unknown model '{self.model[:40]}'; choose one of {', '.join(models)}"
            )
        if self.scale not in models[self.model]:
            scales = ", ".join(map(str, models[self.model]))
            raise OptionError(f"{self.model} has no scale {self.scale}; choose one of {scales}")
        if self.image_format != "keep" and self.image_format not in WRITABLE:
            known = ", ".join(WRITABLE)
            raise OptionError(f"unknown format '{self.image_format[:40]}'; choose one of {known}")
        if self.strength is not None and not has_dial(self.model):
            dialled = ", ".join(filter(has_dial, models))
            raise OptionError(f"{self.model} has no strength; these have: {dialled}")


def offered() -> dict[str, tuple[int, ...]]:
    """Models with their scales: the choice by the file, bundled networks, classical resizing."""
    models: dict[str, tuple[int, ...]] = {}
    for entry in entries():
        models[entry.model] = (*models.get(entry.model, ()), entry.scale)
    return {AUTO: models[USUAL]} | models | dict.fromkeys(CLASSICAL, tuple(SCALES))


def has_dial(model: str) -> bool:
    """Whether a model of :func:`offered` can be mixed with the faithful one of its variant."""
    return model not in CLASSICAL and ":" in model


def word(model: str) -> str | None:
    """The word of ``--for`` that stands for a model of one purpose; None for plain models."""
    return next(
        (name for name, one in PURPOSES.items() if has_dial(model) and model in one.models), None
    )


def purpose(model: str) -> str:
    """What a model of :func:`offered` is for, in a few words."""
    if model in CLASSICAL:
        return "classical resize, for comparison"
    if model == AUTO:
        return f"by the file: {USUAL}, or what mends a coarse JPEG or clip"
    variant, _, kind = model.partition(":")
    if not kind:
        return f"{VARIANTS[variant].purpose}; stays closest to the original"
    wanted = (one.about for one in PURPOSES.values() if model in one.models)
    return next(wanted, f"{VARIANTS[variant].purpose}; {kind}")
