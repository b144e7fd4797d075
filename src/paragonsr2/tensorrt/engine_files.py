"""TensorRT engine files: what an engine was built from and for, and when it is stale.

An engine is valid for one model, one TensorRT version, one GPU, one range of sizes and one
precision, and none of these can be read from the file without loading it. So a JSON file beside
it states them: ``MODEL.engine`` and ``MODEL.engine.json``.
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from paragonsr2.errors import BackendError, MissingExtraError, UsageError, WeightsError
from paragonsr2.files import sha256, write_atomic
from paragonsr2.weights.metadata import GraphPrecision

FORMAT = "paragonsr2-engine-1"
MAX_SIDE = 16384

_SIZE = re.compile(r"(\d{1,6})[xX](\d{1,6})")


@dataclass(frozen=True)
class InputSize:
    """Height and width of an input image, in pixels; written WIDTHxHEIGHT."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def parse_size(flag: str, text: str) -> InputSize:
    """Read ``WIDTHxHEIGHT``, such as ``1280x720``.

    Raises:
        UsageError: ``text`` is not a size, or a side is outside 1..16384; names ``flag``.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{flag} {text}: give WIDTHxHEIGHT in pixels, such as 1280x720")
    size = InputSize(height=int(match[2]), width=int(match[1]))
    if not (1 <= size.height <= MAX_SIDE and 1 <= size.width <= MAX_SIDE):
        raise UsageError(f"{flag} {text}: each side must be from 1 to {MAX_SIDE}")
    return size


@dataclass(frozen=True)
class Profile:
    """The input sizes that an engine takes, at batch size 1.

    Attributes:
        smallest, largest: the range of each side.
        best: the size that the engine is tuned for.

    Raises:
        UsageError: the three are not in ascending order.
    """

    smallest: InputSize
    best: InputSize
    largest: InputSize

    def __post_init__(self) -> None:
        for side in ("height", "width"):
            low, middle, high = (getattr(size, side) for size in self.sizes)
            if not low <= middle <= high:
                raise UsageError(
                    f"the {side} must not decrease from --min over --opt to --max: "
                    f"{low}, {middle}, {high}"
                )

    @property
    def sizes(self) -> tuple[InputSize, InputSize, InputSize]:
        """Smallest, best, largest."""
        return self.smallest, self.best, self.largest

    def __str__(self) -> str:
        return f"{self.smallest}..{self.best}..{self.largest}"


@dataclass(frozen=True)
class Gpu:
    """A graphics card, as far as an engine depends on it.

    Attributes:
        name: as the driver reports it.
        compute_capability: such as ``8.9``.
    """

    name: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


@dataclass(frozen=True)
class EngineIdentity:
    """Everything an engine depends on; if any of it changes, the engine is stale.

    Attributes:
        model_sha256: of the ONNX file.
        tensorrt: full version.
        gpu: the GPU that the engine was tuned on.
        profile: input sizes.
        precision: the requested precision.
    """

    model_sha256: str
    tensorrt: str
    gpu: Gpu
    profile: Profile
    precision: GraphPrecision

    @property
    def key(self) -> str:
        """64 hexadecimal digits that change with anything in the identity."""
        canonical = json.dumps(asdict(self), sort_keys=True, ensure_ascii=True)
        return sha256(canonical.encode())


@dataclass(frozen=True)
class EngineDescription:
    """The description stored beside an engine.

    Attributes:
        identity: what the engine is valid for.
        engine_sha256: of the engine file, so that the two files cannot be mixed up.
        model: name of the ONNX file.
        scale: enlargement, read from the engine.
        input, output: tensor names.
        types: precision of those tensors, read from the engine.
        layers: number of computing layers by precision, read from the engine.
        metadata: of the ONNX file.
    """

    identity: EngineIdentity
    engine_sha256: str
    model: str
    scale: int
    input: str
    output: str
    types: dict[str, str]
    layers: dict[str, int]
    metadata: dict[str, str]


def description_path(engine: Path) -> Path:
    """Where the description of ``engine`` is."""
    return engine.with_name(engine.name + ".json")


def write_description(engine: Path, description: EngineDescription) -> None:
    """Write the description beside ``engine``.

    Raises:
        OutputError: the file cannot be written.
    """
    whole = {"format": FORMAT, **asdict(description)}
    write_atomic(description_path(engine), (json.dumps(whole, indent=1) + "\n").encode())


def read_description(engine: Path) -> EngineDescription:
    """Read the description beside ``engine``.

    Raises:
        WeightsError: it is missing, damaged, or of another format.
    """
    path = description_path(engine)
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        if whole.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        return _description(whole)
    except FileNotFoundError:
        raise WeightsError(
            f"{engine.name} has no {path.name} beside it to say what it is valid for; "
            f"build the engine with: paragonsr2 engine"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise WeightsError(f"{path.name} is damaged ({error}); rebuild the engine") from error


def _description(whole: dict[str, Any]) -> EngineDescription:
    identity = dict(whole["identity"])
    sizes = {name: InputSize(**size) for name, size in identity["profile"].items()}
    identity["profile"] = Profile(**sizes)
    identity["gpu"] = Gpu(**identity["gpu"])
    if identity["precision"] not in ("fp32", "fp16"):
        raise ValueError(f"precision {identity['precision']}")
    scale: object = whole["scale"]
    if not isinstance(scale, int) or scale < 1:
        raise ValueError(f"scale {scale}")
    typed: dict[str, Any] = {**whole, "identity": EngineIdentity(**identity)}
    return EngineDescription(**typed)


def require_current(engine: Path, built: EngineIdentity, wanted: EngineIdentity) -> None:
    """Refuse an engine that was built for something else.

    Args:
        engine: the file, for the message.
        built: what it was built for.
        wanted: what it is needed for.

    Raises:
        BackendError: anything differs; the message says what, and how to rebuild.
    """
    differences = [
        f"{_LABELS[field.name]} {_short(there)}, not {_short(here)}"
        for field in fields(EngineIdentity)
        if (there := getattr(built, field.name)) != (here := getattr(wanted, field.name))
    ]
    if differences:
        raise BackendError(
            f"{engine.name} is stale: it was built for {'; '.join(differences)}. "
            f"Rebuild it: paragonsr2 engine MODEL.onnx -o {engine} --force"
        )


_LABELS = {
    "model_sha256": "model",
    "tensorrt": "TensorRT",
    "gpu": "GPU",
    "profile": "sizes",
    "precision": "precision",
}


def _short(value: object) -> str:
    # Twelve digits of a hash tell two files apart and leave the message readable.
    return value[:12] if isinstance(value, str) else str(value)


def require_usable(
    engine: Path, content: bytes, description: EngineDescription, *, tensorrt: str, gpu: Gpu
) -> None:
    """Refuse an engine that does not fit this machine, its description, or the model beside it.

    Args:
        engine: the file.
        content: its bytes.
        description: the description stored beside it.
        tensorrt: the installed version.
        gpu: the GPU of this machine.

    Raises:
        WeightsError: engine and description do not belong together.
        BackendError: the engine is stale.
    """
    if sha256(content) != description.engine_sha256:
        raise WeightsError(
            f"{engine.name} is not the file that {description_path(engine).name} describes; "
            f"rebuild it with: paragonsr2 engine"
        )
    wanted = replace(description.identity, tensorrt=tensorrt, gpu=gpu)
    model = engine.with_name(description.model)
    if model.is_file():
        wanted = replace(wanted, model_sha256=sha256(model.read_bytes()))
    require_current(engine, description.identity, wanted)


def load_tensorrt() -> Any:
    """Import the ``tensorrt`` module, which ships no types.

    Raises:
        MissingExtraError: TensorRT is not installed.
        BackendError: TensorRT is installed but does not load.
    """
    try:
        return importlib.import_module("tensorrt")
    except ModuleNotFoundError as error:
        raise MissingExtraError("TensorRT", "tensorrt") from error
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BackendError(
            f"TensorRT is installed but does not load: {reason[:160]}; "
            f"install a version for the CUDA version of your driver"
        ) from error


def collecting_logger(trt: Any) -> Any:
    """A ``trt.ILogger`` that keeps the last error for a message instead of printing it.

    ``reason()`` returns that error as the end of a sentence, or an empty string.
    """
    grave = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

    class Collector(trt.ILogger):
        def __init__(self) -> None:
            # pybind11 insists on the base's own initialiser, not super()'s.
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, msg: str) -> None:
            if severity in grave:
                self.last = " ".join(msg.split())

        def reason(self) -> str:
            return f": {self.last[:240]}" if self.last else ""

    return Collector()


def find_gpu(device: str = "auto") -> tuple[str, Gpu]:
    """Find a CUDA device and describe it.

    Args:
        device: ``auto``, ``cuda`` or ``cuda:N``.

    Returns:
        Such as ``cuda:0``, and its description.

    Raises:
        MissingExtraError: PyTorch, which allocates memory on the GPU, is not installed.
        BackendError: there is no such device.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("TensorRT", "tensorrt") from error
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cuda") or not (index or "0").isdigit():
        raise BackendError(f"TensorRT runs on NVIDIA GPUs only, not on {device}")
    number = int(index or 0)
    if number >= torch.cuda.device_count():
        raise BackendError(
            f"PyTorch sees no CUDA device {number}; install the driver and a CUDA build of PyTorch"
        )
    major, minor = torch.cuda.get_device_capability(number)
    return f"cuda:{number}", Gpu(torch.cuda.get_device_name(number), f"{major}.{minor}")
