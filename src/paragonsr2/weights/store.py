"""Reading and writing checkpoints: strict, described by metadata, never unpickled."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from paragonsr2.errors import OptionError, WeightsError
from paragonsr2.files import write_atomic
from paragonsr2.network.attention import WINDOW_KEY
from paragonsr2.network.generator import ALPHA_KEY, ParagonSR2, build, read_alpha
from paragonsr2.network.int8 import STEP_KEY, to_int8
from paragonsr2.variants import ARCH_PREFIX, SCALES, VARIANTS, variant_name
from paragonsr2.weights.metadata import read_facts
from paragonsr2.weights.pickled import read_pickled

FORMAT = "paragonsr2/1"

#: Tensors that every network of the family has, in trained and deployed form.
SIGNATURE = ("conv_in.weight", "upsampler.last.weight")
#: The fusion, in trained and in deployed form; every network has one of the two.
FUSIONS = ("fuse.weight", "fuse.folded.weight")

#: Header entry of our own files: the SHA-256 of the tensors, which reveals a changed weight.
DIGEST_KEY = "tensors_sha256"

State = dict[str, Tensor]

# What weights are stored in; the window of attention is an integer.
_DTYPES = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32}
)


@dataclass(frozen=True)
class Description:
    """Everything needed to build the network that a state belongs to.

    Attributes:
        variant: short name.
        scale: 2, 3, 4 or 8.
        upsampler_alpha: blend of the base path, 0..1.
        window_size: side of the attention window; 0 without attention.
        expansion: of collapsible convolutions; 0 if they are trained as they deploy, 1 in the
            deployed form.
        collapsed: whether the state is of the deployed form.
        int8: whether it is trained for INT8; such a state is of the deployed form.
    """

    variant: str
    scale: int
    upsampler_alpha: float
    window_size: int
    expansion: int
    collapsed: bool
    int8: bool = False

    def metadata(self) -> dict[str, str]:
        """The metadata that checkpoints and deployed models share."""
        return {
            "format": FORMAT,
            "arch": ARCH_PREFIX + self.variant,
            "variant": self.variant,
            "scale": str(self.scale),
            "upsampler_alpha": repr(self.upsampler_alpha),
            "window_size": str(self.window_size),
        }

    def build(self) -> ParagonSR2:
        """Build an untrained network of this description, in deployed form if ``collapsed``."""
        network = build(
            self.variant,
            self.scale,
            upsampler_alpha=self.upsampler_alpha,
            window_size=self.window_size,
            expansion=self.expansion,
        )
        if self.int8:
            return to_int8(network)
        return network.collapse() if self.collapsed else network


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights and their history.

    Attributes:
        network: in evaluation mode, on the CPU, float32.
        description: how it was built.
        training: summary of its training, from the metadata; empty if there is none.
    """

    network: ParagonSR2
    description: Description
    training: Mapping[str, Any]


def describe(network: ParagonSR2, variant: str) -> Description:
    """The description from which ``network`` can be built again."""
    return describe_state(
        network.state_dict(),
        variant=variant,
        scale=network.scale,
        upsampler_alpha=network.upsampler_alpha,
    )


def describe_state(
    state: Mapping[str, object],
    *,
    variant: str | None = None,
    scale: int | None = None,
    upsampler_alpha: float | None = None,
) -> Description:
    """Describe a state by its tensors, checked against what else is known about it.

    Args:
        state: tensors by name, without wrappers and prefixes.
        variant: short or full name; None infers it from the width.
        scale: stated enlargement.
        upsampler_alpha: stated base path; exact where the state's own is rounded. 0 if neither
            states it.

    Raises:
        WeightsError: the state is not of a ParagonSR2 network, or contradicts what is stated.
    """
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    lacking = [key for key in SIGNATURE if key not in tensors]
    if not any(key in tensors for key in FUSIONS):
        lacking.append(FUSIONS[0])
    if lacking:
        raise WeightsError(f"no ParagonSR2 network: tensor {lacking[0]} is missing")
    try:
        return Description(
            variant=_width_variant(tensors) if variant is None else variant_name(variant),
            scale=_infer_scale(tensors, scale),
            upsampler_alpha=_infer_alpha(tensors, upsampler_alpha),
            window_size=_infer_window(tensors),
            expansion=_infer_expansion(tensors),
            collapsed="detail_gain" not in tensors,
            int8=any(key.endswith(STEP_KEY) for key in tensors),
        )
    except (OptionError, ValueError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(f"no ParagonSR2 network: {error}") from error


def save_checkpoint(
    path: Path,
    network: ParagonSR2,
    variant: str,
    training: Mapping[str, object] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write ``network`` as flat safetensors with its description in the header, atomically.

    Args:
        path: ``*.safetensors``.
        network: trained or deployed form.
        variant: short or full name.
        training: summary of how it was trained, JSON-serialisable.
        dtype: of the stored weights.

    Raises:
        OutputError: the file cannot be written.
    """
    about = describe(network, variant)
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    # What describes the network stays exact.
    weights = dict(network.named_parameters()).keys()
    state = {key: value.to(dtype) if key in weights else value for key, value in state.items()}
    metadata = {
        **about.metadata(),
        "expansion": str(about.expansion),
        "training": json.dumps(dict(training or {}), sort_keys=True),
        DIGEST_KEY: _digest(state),
    }
    write_atomic(path, save(state, metadata))


def load_checkpoint(
    path: Path,
    *,
    arch: str | None = None,
    scale: int | None = None,
    upsampler_alpha: float | None = None,
    trusted: bool = False,
) -> Checkpoint:
    """Read a checkpoint strictly.

    Args:
        path: ``*.safetensors``, or a ``*.pth`` / ``*.pt`` / ``*.ckpt`` of tensors, with the
            wrappers and ``module.`` prefixes that other trainers use.
        arch: required variant; None accepts any.
        scale: required scale; None accepts any.
        upsampler_alpha: base path, for files that do not state it; must not contradict the file.
        trusted: read a pickled file in this process, without limits of memory and time.

    Raises:
        WeightsError: the file is missing, damaged, changed or unsafe, or holds another network
            than required.
    """
    state, metadata = read_state(path, trusted=trusted)
    facts = read_facts(metadata, path.name)
    if metadata.get(DIGEST_KEY, "") not in ("", _digest(state)):
        raise WeightsError(
            f"{path.name}: its tensors have changed since it was written; get the file again, or, "
            f"if they were changed on purpose, save them without {DIGEST_KEY} in the header"
        )
    try:
        wanted = None if arch is None else variant_name(arch)
        stated = facts.upsampler_alpha
        about = describe_state(
            state,
            variant=facts.variant,
            scale=facts.scale,
            upsampler_alpha=upsampler_alpha if stated is None else stated,
        )
    except WeightsError as error:
        raise WeightsError(f"{path.name} holds {error}") from error
    except OptionError as error:
        raise WeightsError(f"{path.name} holds no ParagonSR2 network: {error}") from error
    if stated is not None and upsampler_alpha is not None and stated != upsampler_alpha:
        raise WeightsError(
            f"{path.name} was trained with upsampler_alpha {stated}, not {upsampler_alpha}; "
            "drop the option"
        )
    if wanted is not None and wanted != about.variant:
        raise WeightsError(f"{path.name} holds variant '{about.variant}', not '{wanted}'")
    if scale is not None and scale != about.scale:
        raise WeightsError(f"{path.name} enlarges x{about.scale}, not x{scale}")
    network = load_network(state, about, path)
    return Checkpoint(network.eval(), about, facts.training)


def read_state(path: Path, *, trusted: bool = False) -> tuple[State, dict[str, str]]:
    """Read the bare tensors of a checkpoint and its metadata, which pickled files do not have.

    Args:
        path: of the checkpoint.
        trusted: see :func:`load_checkpoint`.

    Raises:
        WeightsError: the file is missing or damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise WeightsError(f"there is no checkpoint {path}")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return state, file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path.name} is not readable safetensors: {error}") from error
    return read_pickled(path, trusted=trusted), {}


def _digest(state: State) -> str:
    """The SHA-256 of names, types, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for key, tensor in sorted(state.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _width_variant(state: State) -> str:
    width = state["conv_in.weight"].shape[0]
    for name, row in VARIANTS.items():
        if row.channels == width:
            return name
    raise OptionError(f"no variant is {width} channels wide")


def _infer_scale(state: State, stated: int | None) -> int:
    last_scale = math.isqrt(state["upsampler.last.weight"].shape[0] // 3)
    stages = len({k for k in state if re.fullmatch(r"upsampler\.stages\.\d+\.weight", k)})
    found = last_scale * 2**stages
    if found not in SCALES or (stated is not None and stated != found):
        raise OptionError(f"its upsampler is for x{found}" + (f", not x{stated}" if stated else ""))
    return found


def _infer_alpha(state: State, stated: float | None) -> float:
    if ALPHA_KEY not in state:
        return stated or 0.0
    carried = read_alpha(state[ALPHA_KEY])
    if stated is None:
        return carried.value
    if abs(stated - carried.value) > carried.tolerance:
        raise WeightsError(
            f"tensors of upsampler_alpha {carried.value}, not {stated}; "
            "drop the option, or get the file again if its own header states it"
        )
    return stated


def _infer_window(state: State) -> int:
    for key, value in state.items():
        if key.endswith(WINDOW_KEY):
            if value.numel() != 1 or not math.isfinite(float(value)):
                raise OptionError(f"{key} must be a single number")
            return int(value)
    return 0


def _infer_expansion(state: State) -> int:
    if not any(key.endswith(".expand") for key in state) and "detail_gain" in state:
        return 0
    wide = [v for key, v in state.items() if key.endswith(".expand") and v.ndim == 2]
    # Convolutions to more channels than they have inputs are wider than the expansion says.
    return min((v.shape[0] // v.shape[1] for v in wide), default=1)


def load_network(state: State, about: Description, path: Path) -> ParagonSR2:
    """Build a network and load its state strictly.

    Args:
        state: tensors by name. Two may be missing, in states from before they existed:
            ``upsampler_alpha``, and the wide contexts of Realtime, if all of them are.
        about: what to build.
        path: of the state, for messages.

    Returns:
        The network, float32, on the CPU.

    Raises:
        WeightsError: a tensor is missing, unknown, of another shape or type, or not finite.
    """
    variant = about.variant
    hint = f"See which variant it is: paragonsr2 inspect {path}"
    try:
        network = about.build()
    except OptionError as error:
        raise WeightsError(f"{path.name} is not of variant '{variant}': {error}. {hint}") from error
    expected = network.state_dict()
    contexts = {key for key in expected if ".context." in key}
    if VARIANTS[variant].block == "nano" and contexts.isdisjoint(state):
        # In a new network the contexts add nothing, which is what such a state was trained with.
        state = {**state, **{key: expected[key] for key in contexts}}
    missing = [key for key in expected if key not in state and key != ALPHA_KEY]
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
        if value.dtype not in _DTYPES:
            raise WeightsError(
                f"{path.name}: {key} holds {str(value.dtype).removeprefix('torch.')}; save it as "
                "float32, float16 or bfloat16"
            )
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path.name}: {key} holds NaN or Inf; the file is damaged")
    network.load_state_dict(state)
    return network
