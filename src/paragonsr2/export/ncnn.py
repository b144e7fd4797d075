"""ncnn models, for Upscayl and the other programs built on ncnn and Vulkan.

PNNX converts the traced network. Two things differ from the network itself: a closing ReLU, because
the shaders of these programs turn negative values into white, and dense convolutions in place of
the thin depthwise ones, because some programs are built without the depthwise layer.

Source: ncnn's and PNNX's documentation.
"""

from __future__ import annotations

import copy
import io
import math
import re
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.errors import ExportError, MissingExtraError
from paragonsr2.files import write_atomic
from paragonsr2.network.base import MagicKernelSharp2021
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.network.heads import FoldedFuse
from paragonsr2.network.int8 import is_int8

#: Names of the tensors that the programs ask for.
INPUT, OUTPUT = "data", "output"

# Depthwise layers of at most this many channels become dense: that costs little, and they are what
# Realtime has.
_THIN = 16
# Two sizes that differ in both sides tell PNNX that both are free.
_SIZES = ((37, 53), (64, 48))
_SECONDS = 300


@dataclass(frozen=True)
class NcnnModel:
    """The two files of an ncnn model.

    Attributes:
        param: the layers, as text.
        content: the weights in half precision, the ``.bin`` file.
    """

    param: str
    content: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write ``NAME.param`` and ``NAME.bin``.

        Args:
            folder: where to; it is created if it does not exist.
            name: programs read the scale from it, so it should end in ``x2`` or ``x4``.

        Raises:
            OutputError: a file cannot be written.
        """
        param, weights = folder / f"{name}.param", folder / f"{name}.bin"
        write_atomic(weights, self.content)
        write_atomic(param, self.param.encode())
        return param, weights


def build_ncnn(network: ParagonSR2) -> NcnnModel:
    """Convert a network.

    Args:
        network: any form, float32 on the CPU; it stays as it is.

    Raises:
        MissingExtraError: PNNX is not installed.
        ExportError: PNNX failed, it left an operation that ncnn does not know, or the network is
            trained for INT8.
    """
    if is_int8(network):
        raise ExportError("a network trained for INT8 exports as ONNX; export the one it came from")
    try:
        import pnnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting to ncnn", "ncnn") from error
    deployed = copy.deepcopy(network) if network.is_collapsed else network.collapse()
    _enlarge_small_weights(deployed)
    _make_dense(deployed)
    with warnings.catch_warnings():
        # PNNX reads TorchScript and nothing else, deprecated or not.
        warnings.simplefilter("ignore", DeprecationWarning)
        trace = cast("Callable[..., torch.jit.ScriptModule]", torch.jit.trace)
        traced = trace(_Closed(deployed).eval(), torch.rand(1, 3, *_SIZES[0]))
        # Not into a file: one that PyTorch cannot write to its end aborts the process.
        torch.jit.save(traced, held := io.BytesIO())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        path.write_bytes(held.getvalue())
        shapes = [f"[1,3,{height},{width}]" for height, width in _SIZES]
        command = [pnnx.EXEC_PATH, path.name, f"inputshape={shapes[0]}",
                   f"inputshape2={shapes[1]}", "fp16=1"]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ExportError(f"PNNX did not finish: {error}") from error
        written = path.with_name("model.ncnn.param")
        if done.returncode or not written.exists():
            raise ExportError(f"PNNX failed: {(done.stderr or done.stdout).strip()[-300:]}")
        param = written.read_text(encoding="utf-8")
        content = path.with_name("model.ncnn.bin").read_bytes()
    unknown = sorted(set(re.findall(r"^((?:pnnx|aten|prim|torch|F)\S*)", param, re.MULTILINE)))
    if unknown:
        raise ExportError(f"ncnn has no layer for {', '.join(unknown)}; export Realtime or Stream")
    return NcnnModel(_renamed(param), content)


def _renamed(param: str) -> str:
    """The text with the tensor names that programs expect in place of PNNX's."""
    return re.sub(r"\bin0\b", INPUT, re.sub(r"\bout0\b", OUTPUT, param))


class _Closed(nn.Module):
    """A network whose output is never negative."""

    def __init__(self, network: ParagonSR2) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.network(x))


class _DenseBase(nn.Module):
    """The base path in one dense convolution."""

    def __init__(self, base: MagicKernelSharp2021) -> None:
        super().__init__()
        self.base = base
        self.conv = _dense(base.get_buffer("kernel"), None, groups=3)

    def phases(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.base.reach,) * 4, mode="replicate"))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.phases(x), self.base.scale)


@torch.no_grad()
def _enlarge_small_weights(deployed: ParagonSR2) -> None:
    """Bring the small weights of the last convolution into the range that half precision keeps.

    PNNX writes zero for whatever is below 6e-5. A power of two moves from the weights that make the
    fused features to those that read them, so that both are about as large and the network computes
    the same.
    """
    fuse = deployed.fuse
    if deployed.upsampler.stages or not isinstance(fuse, FoldedFuse):
        return
    last = deployed.upsampler.last.weight
    small, large = (float(weight.square().mean()) for weight in (last, fuse.folded.weight))
    if not small or not large:  # untrained
        return
    factor = 2.0 ** round(math.log2(large / small) / 4)
    for parameter in fuse.folded.parameters():
        parameter.div_(factor)
    last.mul_(factor)
    if deployed.gate is not None:
        deployed.gate.narrow.weight.mul_(factor)


def _make_dense(parent: nn.Module) -> None:
    """Replace thin depthwise convolutions by dense ones that compute the same."""
    for name, child in list(parent.named_children()):
        if isinstance(child, MagicKernelSharp2021) and hasattr(child, "kernel"):
            setattr(parent, name, _DenseBase(child))
        elif isinstance(child, nn.Conv2d) and 1 < child.groups <= _THIN:
            dense = _dense(child.weight, child.bias, child.groups)
            dense.padding, dense.dilation = child.padding, child.dilation
            setattr(parent, name, dense)
        else:
            _make_dense(child)


@torch.no_grad()
def _dense(weight: Tensor, bias: Tensor | None, groups: int) -> nn.Conv2d:
    """The dense convolution of a grouped kernel ``(outputs, inputs / groups, rows, columns)``."""
    outputs, per_group, rows, columns = weight.shape
    conv = nn.Conv2d(per_group * groups, outputs, (rows, columns), bias=bias is not None)
    conv.weight.zero_()
    each = outputs // groups
    for group in range(groups):
        rows_of, inputs = (
            slice(group * each, (group + 1) * each),
            slice(group * per_group, (group + 1) * per_group),
        )
        conv.weight[rows_of, inputs] = weight[rows_of]
    if bias is not None and conv.bias is not None:
        conv.bias.copy_(bias)
    return conv
