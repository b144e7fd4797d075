"""Reading and writing of checkpoints: strict, described by metadata, and never unpickled."""

from __future__ import annotations

import json
import math
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from paragonsr2.errors import OptionError, WeightsError
from paragonsr2.files import write_atomic
from paragonsr2.network.generator import ParagonSR2, build
from paragonsr2.variants import ARCH_PREFIX, SCALES, VARIANTS, variant_name

FORMAT = "paragonsr2/1"
WRAPPERS = (
    "params_ema",
    "params-ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
)

State = dict[str, Tensor]


@dataclass(frozen=True)
class Description:
    """What must be known to build the network that a state belongs to.

    Attributes:
        variant: short name.
        scale: 2, 3, 4 or 8.
        upsampler_alpha: base path.
        window_size: attention window; 0 without attention.
        expansion: of collapsible convolutions; 1 where nothing tells it and nothing needs it.
        collapsed: the state is of the deployed form.
    """

    variant: str
    scale: int
    upsampler_alpha: float
    window_size: int
    expansion: int
    collapsed: bool

    def build(self) -> ParagonSR2:
        """An untrained network of this description, deployed form where ``collapsed``."""
        network = build(
            self.variant,
            self.scale,
            upsampler_alpha=self.upsampler_alpha,
            window_size=self.window_size,
            expansion=self.expansion,
        )
        return network.collapse() if self.collapsed else network


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights and what is known of them.

    Attributes:
        network: in evaluation mode, on the CPU, float32.
        description: what was built.
        training: the training digest of the metadata; empty if there is none.
    """

    network: ParagonSR2
    description: Description
    training: dict[str, Any]


def describe(network: ParagonSR2, variant: str) -> Description:
    """The description under which ``network`` can be built again."""
    state = network.state_dict()
    return _infer(state, variant_name(variant), network.scale, network.upsampler_alpha)


def save_checkpoint(
    path: Path, network: ParagonSR2, variant: str, training: Mapping[str, object] | None = None
) -> None:
    """Write ``network`` as flat safetensors with its description in the header, atomically.

    Args:
        path: ``*.safetensors``.
        network: trained or deployed form.
        variant: short or full name.
        training: digest of how it was trained, JSON-serialisable.

    Raises:
        OutputError: the file cannot be written.
    """
    about = describe(network, variant)
    metadata = {
        "format": FORMAT,
        "arch": ARCH_PREFIX + about.variant,
        "variant": about.variant,
        "scale": str(about.scale),
        "upsampler_alpha": repr(about.upsampler_alpha),
        "window_size": str(about.window_size),
        "expansion": str(about.expansion),
        "training": json.dumps(dict(training or {}), sort_keys=True),
    }
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    write_atomic(path, save(state, metadata))


def load_checkpoint(
    path: Path,
    *,
    arch: str | None = None,
    scale: int | None = None,
    upsampler_alpha: float | None = None,
) -> Checkpoint:
    """Read a checkpoint strictly.

    Args:
        path: ``*.safetensors``, or a ``*.pth`` / ``*.pt`` / ``*.ckpt`` of tensors, with the
            wrappers and ``module.`` prefixes that other trainers use.
        arch: refuse anything but this variant.
        scale: refuse anything but this scale.
        upsampler_alpha: base path, for files that do not say it; must not contradict others.

    Raises:
        WeightsError: missing, damaged, unsafe, of another network, or contradicting.
    """
    state, metadata = read_state(path)
    try:
        wanted = None if arch is None else variant_name(arch)
        claimed = metadata.get("variant")
        about = _infer(
            state,
            variant_name(claimed) if claimed else _variant_of(state),
            int(metadata["scale"]) if "scale" in metadata else None,
            float(metadata["upsampler_alpha"]) if "upsampler_alpha" in metadata else None,
        )
    except (OptionError, KeyError, ValueError, IndexError) as error:
        raise WeightsError(f"{path.name} holds no ParagonSR2 network: {error}") from error
    if wanted is not None and wanted != about.variant:
        raise WeightsError(f"{path.name} is of variant '{about.variant}', not '{wanted}'")
    if scale is not None and scale != about.scale:
        raise WeightsError(f"{path.name} enlarges x{about.scale}, not x{scale}")
    if upsampler_alpha is not None:
        if "upsampler_alpha" in metadata and about.upsampler_alpha != upsampler_alpha:
            raise WeightsError(
                f"{path.name} was trained with upsampler_alpha {about.upsampler_alpha}, "
                f"not {upsampler_alpha}; leave the option away"
            )
        about = replace(about, upsampler_alpha=upsampler_alpha)
    try:
        network = about.build()
    except OptionError as error:
        raise WeightsError(
            f"{path.name} is not of variant '{about.variant}', as its metadata says: {error}. "
            f"Look: paragonsr2 inspect {path}"
        ) from error
    _load_strictly(network, state, path, about.variant)
    try:
        training = json.loads(metadata.get("training", "{}"))
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path.name}: its training digest is no JSON: {error}") from error
    return Checkpoint(network.eval(), about, training)


def read_state(path: Path) -> tuple[State, dict[str, str]]:
    """The bare tensors of a checkpoint and its metadata (empty for pickled files).

    Raises:
        WeightsError: the file is missing, damaged or holds anything but tensors.
    """
    if not path.is_file():
        raise WeightsError(f"there is no checkpoint {path}")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return state, file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path.name} is no readable safetensors file: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path.name} is refused: it holds more than tensors, or is damaged; "
            "convert it to safetensors where it was made"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path.name} is no readable checkpoint") from error
    return _unwrap(loaded, path), {}


def _unwrap(loaded: object, path: Path) -> State:
    for key in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(cast(Any, loaded).get(key), dict):
            loaded = cast(object, cast(Any, loaded)[key])
            break
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path.name} holds no table of tensors")
    table = cast(dict[object, object], loaded)
    state: State = {}
    for key, value in table.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path.name}: entry {key!r} is no tensor")
        state[key.removeprefix("module.")] = value
    return state


def _variant_of(state: State) -> str:
    width = state["conv_in.weight"].shape[0]
    for name, row in VARIANTS.items():
        if row.channels == width:
            return name
    raise OptionError(f"no variant is {width} channels wide")


def _infer(state: State, variant: str, scale: int | None, alpha: float | None) -> Description:
    """What the shapes tell, checked against what the metadata claims."""
    last_scale = math.isqrt(state["upsampler.last.weight"].shape[0] // 3)
    stages = len({k for k in state if re.fullmatch(r"upsampler\.stages\.\d+\.weight", k)})
    found = last_scale * 2**stages
    if found not in SCALES or (scale is not None and scale != found):
        raise OptionError(f"its upsampler is for x{found}" + (f", not x{scale}" if scale else ""))
    window = 0
    for key, value in state.items():
        if key.endswith("bias_table"):
            window = (math.isqrt(value.shape[0]) + 1) // 2
    expansion = 1
    for key, value in state.items():
        if key.endswith(".expand") and value.ndim == 2:
            expansion = value.shape[0] // value.shape[1]
    collapsed = "detail_gain" not in state
    return Description(variant, found, alpha or 0.0, window, expansion, collapsed)


def _load_strictly(network: ParagonSR2, state: State, path: Path, variant: str) -> None:
    expected = network.state_dict()
    hint = f"Trained as another variant? Look: paragonsr2 inspect {path}"
    missing = [key for key in expected if key not in state]
    if missing:
        raise WeightsError(
            f"{path.name} lacks {len(missing)} tensors that '{variant}' needs "
            f"(first: {missing[0]}). {hint}"
        )
    extra = [key for key in state if key not in expected]
    if extra:
        raise WeightsError(
            f"{path.name} has {len(extra)} tensors that '{variant}' has no place for "
            f"(first: {extra[0]}). {hint}"
        )
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise WeightsError(
                f"{path.name}: {key} is {tuple(value.shape)}, "
                f"'{variant}' needs {tuple(expected[key].shape)}. {hint}"
            )
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path.name}: {key} holds NaN or Inf; the file is damaged")
    network.load_state_dict(state)
