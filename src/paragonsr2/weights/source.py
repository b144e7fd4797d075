"""Finding a model by its name or path, without opening it.

Resolving opens nothing: it says which files a model has. Opening, in ``upscale.opening``, then
puts one of those files into an engine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paragonsr2.errors import OptionError
from paragonsr2.variants import VARIANTS
from paragonsr2.weights.blending import BlendedFile
from paragonsr2.weights.catalogue import Entry, ModelFile, find

Kernel = Literal["bicubic", "magic"]

CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")

#: Suffixes of the files that hold a model.
MODEL_SUFFIXES = (".onnx", ".engine", *CHECKPOINT_SUFFIXES)

#: What ``--model`` takes, for messages.
MODELS = (
    f"{', '.join(VARIANTS)}, VARIANT:KIND[@STRENGTH], bicubic, magic[:ALPHA], "
    f"or a file that ends in {', '.join(MODEL_SUFFIXES)}"
)

#: Enlargement of bundled and classical models when none is asked for.
DEFAULT_SCALE = 2


@dataclass(frozen=True)
class ModelSource:
    """A model that has been found and not opened.

    A bundled model has two or three graphs and a checkpoint, a model file is one of the four kinds,
    and a classical model has a kernel and no file.

    Attributes:
        name: what the user called it.
        scale: enlargement it must have; None takes what the file states.
        graph: an ONNX file, float32 if the model is bundled.
        graph_fp16: the float16 twin of ``graph``.
        graph_int8: its twin trained for INT8.
        checkpoint: tensors for PyTorch.
        engine: a TensorRT engine.
        kernel: of a classical model.
        alpha: Magic Kernel blend; 0 for everything else.
        kind: of a bundled model, such as ``compressed``.
    """

    name: str
    scale: int | None
    graph: ModelFile | None = None
    graph_fp16: ModelFile | None = None
    graph_int8: ModelFile | None = None
    checkpoint: ModelFile | None = None
    engine: ModelFile | None = None
    kernel: Kernel | None = None
    alpha: float = 0.0
    kind: str = ""

    @property
    def restores(self) -> bool:
        """Whether it is bundled to undo what encoders, noise or blur have done."""
        return self.kind in ("art", "compressed", "real")

    @property
    def is_bundled(self) -> bool:
        """Whether its graph comes with the package."""
        return self.graph is not None and bool(self.graph.sha256)

    @property
    def digest(self) -> str:
        """What distinguishes this model from others: a SHA-256, or the name and scale of a kernel.

        Raises:
            WeightsError: the file cannot be read.
        """
        file = self.graph or self.checkpoint or self.engine
        return f"{self.name} x{self.scale}" if file is None else file.digest


def resolve(model: str | Path, scale: int | None = None, *, trusted: bool = False) -> ModelSource:
    """Find a model.

    Args:
        model: a bundled variant such as ``realtime`` or ``stream:compressed``, ``bicubic``,
            ``magic[:ALPHA]``, or the path of a model file, which need not exist yet. With
            ``@0.5``, ``stream:real`` is half-way to the fidelity model of its variant.
        scale: wanted enlargement; None takes what a file states, and 2 for other models.
        trusted: a file is to be opened without limits of memory, time and operators.

    Raises:
        OptionError: there is no such model.
        WeightsError: the model is not bundled at this scale.
    """
    name = str(model)
    path = Path(model)
    kind, _, parameter = name.partition(":")
    if kind == "bicubic" or kind == "magic":
        return ModelSource(name, scale or DEFAULT_SCALE, kernel=kind, alpha=_alpha(kind, parameter))
    bundled, dialled, strength = name.partition("@")
    if dialled and bundled.partition(":")[0] in VARIANTS:
        return _between(find(bundled, scale or DEFAULT_SCALE), _strength(strength))
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return ModelSource(name, scale, graph=ModelFile(path, trusted=trusted))
    if suffix == ".engine":
        return ModelSource(name, scale, engine=ModelFile(path))
    if suffix in CHECKPOINT_SUFFIXES:
        return ModelSource(name, scale, checkpoint=ModelFile(path, trusted=trusted))
    if suffix or path.exists():
        raise OptionError(
            f"{name} is not a model; --model takes {MODELS}. Pictures and videos go without a flag"
        )
    entry = find(name, scale or DEFAULT_SCALE)
    return ModelSource(
        name,
        entry.scale,
        graph=entry.file("onnx"),
        graph_fp16=entry.file("onnx_fp16") if "onnx_fp16" in entry.files else None,
        graph_int8=entry.file("onnx_int8") if "onnx_int8" in entry.files else None,
        checkpoint=entry.file("safetensors"),
        kind=entry.kind,
    )


def is_bundled(model: str) -> bool:
    """Whether a name is that of a bundled network, such as ``stream:real``."""
    return model.partition(":")[0] in VARIANTS


def with_strength(model: str, strength: float) -> str:
    """The name of the model between a bundled one and the fidelity model of its variant.

    Args:
        model: such as ``stream:perceptual``.
        strength: 0 (faithful) to 1.

    Raises:
        OptionError: the model is not a bundled one.
    """
    if not is_bundled(model):
        raise OptionError(f"a strength is for bundled models such as stream:real, not {model}")
    return f"{model}@{strength:g}"


def _strength(text: str) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = math.nan
    if not 0.0 <= strength <= 1.0:
        raise OptionError(f"a strength of '{text}': use a number of 0 (faithful) to 1")
    return strength


def _between(entry: Entry, strength: float) -> ModelSource:
    if entry.kind == "fidelity":
        raise OptionError(
            f"{entry.model} is the faithful end itself; a strength is for another kind, such as "
            "stream:perceptual, which is --for crisp"
        )
    parent = find(entry.variant, entry.scale)

    def graph(kind: Literal["onnx", "onnx_fp16"]) -> BlendedFile:
        file = entry.file(kind)
        return BlendedFile(file.path, file.sha256, faithful=parent.file(kind), strength=strength)

    name = f"{entry.model}@{strength:g}"
    full, half = graph("onnx"), graph("onnx_fp16")
    return ModelSource(name, entry.scale, graph=full, graph_fp16=half, kind=entry.kind)


def _alpha(kind: str, parameter: str) -> float:
    if kind == "bicubic" and parameter:
        raise OptionError(
            f"bicubic takes no parameter; write bicubic in place of bicubic:{parameter}"
        )
    try:
        return float(parameter or 0.0)
    except ValueError:
        raise OptionError(f"'{parameter}' is not a number; write magic:0.5") from None
