"""Other people's networks: their published figures, how to build them, how to export them."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from onnx import helper
from torch import Tensor, nn

from benchmark import peer_networks
from benchmark.torchvision_names import torchvision_names
from paragonsr2.errors import ExportError, MissingExtraError, UsageError
from paragonsr2.network.layers import CollapsibleConv

SCALE = 2
#: A built network must have the published number of parameters, up to this relative error ...
TOLERANCE = 0.03
# ... or up to rounding: the figures of small networks have two digits.
_ROUNDING_KPARAMS = 0.5


@dataclass(frozen=True)
class PeerRow:
    """Published figures of a network at x2.

    Attributes:
        name: as its authors write it.
        kparams: thousand parameters.
        gmacs: 10^9 multiply-adds for a 640x360 input; None if unknown.
        set5: PSNR-Y on Set5 in dB; None if unknown.
        set14: PSNR-Y on Set14 in dB; None if unknown.
        source: where the figures come from.
    """

    name: str
    kparams: float
    gmacs: float | None
    set5: float | None
    set14: float | None
    source: str

    def least_gmacs(self, height: int, width: int) -> float:
        """Lower bound of the multiply-adds of a call, in 10^9.

        Without a published figure: each parameter is used once per pixel.
        """
        at_360p = self.kparams * 640 * 360 / 1e6 if self.gmacs is None else self.gmacs
        return at_360p * height * width / (640 * 360)


@dataclass(frozen=True)
class Recipe:
    """How to build a network.

    Attributes:
        module: the module that defines the class.
        name: name of the class.
        options: arguments of its constructor.
        channels: 3, or 1 for networks that upscale luma only.
    """

    module: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    channels: int = 3


def _spandrel(name: str, **options: object) -> Recipe:
    return Recipe(f"spandrel.architectures.{name}", name, options)


def _by_hand(name: str, channels: int = 3) -> Recipe:
    return Recipe(peer_networks.__name__, name, channels=channels)


_DIRECT = "pixelshuffledirect"
_RGB = {"num_in_ch": 3, "num_out_ch": 3}

#: How to build each network at x2, by the name of its row in the table.
RECIPES: Mapping[str, Recipe] = {
    "ESPCN": _by_hand("ESPCN", channels=1),
    "FSRCNN": _by_hand("FSRCNN", channels=1),
    "VDSR": _by_hand("VDSR", channels=1),
    "IMDN_RTC": _by_hand("RealtimeIMDN"),
    "IMDN": _by_hand("IMDN"),
    "RLFN": _by_hand("RLFN"),
    "PAN": _by_hand("PAN"),
    "Compact": _spandrel(
        "Compact", **_RGB, num_feat=64, num_conv=16, upscale=SCALE, act_type="prelu"
    ),
    "SAFMN": _spandrel("SAFMN", dim=36, n_blocks=8, ffn_scale=2.0, upscaling_factor=SCALE),
    "SPAN-S": _spandrel("SPAN", **_RGB, feature_channels=48, upscale=SCALE),
    "SPAN": _spandrel("SPAN", **_RGB, feature_channels=52, upscale=SCALE),
    "SeemoRe-T": _spandrel(
        "SeemoRe", scale=SCALE, num_experts=3, num_layers=6, embedding_dim=36, lr_space="exp",
        topk=1, recursive=2, global_kernel_size=11,
    ),
    "PLKSR-tiny": _spandrel(
        "PLKSR", n_blocks=12, ccm_type="DCCM", kernel_size=13, use_ea=False,
        upscaling_factor=SCALE,
    ),
    "PLKSR": _spandrel(
        "PLKSR", n_blocks=28, ccm_type="DCCM", kernel_size=17, upscaling_factor=SCALE
    ),
    "SwinIR-light": _spandrel(
        "SwinIR", window_size=8, depths=[6] * 4, embed_dim=60, num_heads=[6] * 4, mlp_ratio=2,
        upsampler=_DIRECT, upscale=SCALE,
    ),
    "DAT-light": _spandrel(
        "DAT", embed_dim=60, depth=[18], num_heads=[6], expansion_factor=2, split_size=[8, 32],
        upsampler=_DIRECT, upscale=SCALE, resi_connection="3conv",
    ),
    "OmniSR": _spandrel("OmniSR", num_feat=64, res_num=5, window_size=8, up_scale=SCALE),
    "ATD-light": _spandrel(
        "ATD", embed_dim=48, depths=[6] * 4, num_heads=[4] * 4, window_size=16,
        category_size=128, num_tokens=64, reducted_dim=8, convffn_kernel_size=7, mlp_ratio=1,
        upsampler=_DIRECT, upscale=SCALE,
    ),
    "SwinIR": _spandrel(
        "SwinIR", window_size=8, depths=[6] * 6, embed_dim=180, num_heads=[6] * 6, mlp_ratio=2,
        upsampler="pixelshuffle", upscale=SCALE,
    ),
    "HAT": _spandrel(
        "HAT", window_size=16, compress_ratio=3, squeeze_factor=30, conv_scale=0.01,
        overlap_ratio=0.5, depths=[6] * 6, embed_dim=180, num_heads=[6] * 6, mlp_ratio=2,
        upsampler="pixelshuffle", upscale=SCALE,
    ),
    "ATD": _spandrel(
        "ATD", embed_dim=210, depths=[6] * 6, num_heads=[6] * 6, window_size=16,
        category_size=256, num_tokens=128, reducted_dim=20, convffn_kernel_size=5, mlp_ratio=2,
        upsampler="pixelshuffle", upscale=SCALE,
    ),
}  # fmt: skip


def read_peers(path: Path) -> list[PeerRow]:
    """Read a table of networks; skips classical resizing, which has no parameters.

    Args:
        path: a JSON list of objects with ``name`` and ``kparams_x2``, and optionally
            ``source``, ``gmacs_x2_720p_out``, ``psnr_y_x2_Set5`` and ``psnr_y_x2_Set14``.

    Raises:
        UsageError: the file cannot be read, or is not such a list.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return [
            PeerRow(
                name=str(row["name"]),
                kparams=float(row["kparams_x2"]),
                gmacs=row.get("gmacs_x2_720p_out"),
                set5=row.get("psnr_y_x2_Set5"),
                set14=row.get("psnr_y_x2_Set14"),
                source=str(row.get("source", "")),
            )
            for row in table
            if row["kparams_x2"]
        ]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is not a table of networks ({error!r}); it must be a JSON list of objects "
            "with name and kparams_x2"
        ) from error


def size_matches(counts: tuple[float, ...], kparams: float) -> bool:
    """Whether one of ``counts`` agrees with the rounded ``kparams`` of a row; all in thousands."""
    limit = max(TOLERANCE * kparams, _ROUNDING_KPARAMS)
    return any(abs(count - kparams) <= limit for count in counts)


def build_peer(row: PeerRow) -> nn.Module:
    """Build the deployed form of a network with random weights, in evaluation mode.

    Raises:
        MissingExtraError: spandrel is needed and not installed.
        ExportError: there is no recipe, or the result does not have the published size.
    """
    recipe = RECIPES.get(row.name)
    if recipe is None:
        raise ExportError("neither spandrel nor benchmark/ has this architecture")
    torch.manual_seed(0)
    try:
        # Some networks of spandrel call functions that PyTorch has deprecated.
        with torchvision_names(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            maker = getattr(importlib.import_module(recipe.module), recipe.name)
            network = _without_training_branches(cast(nn.Module, maker(**recipe.options)).eval())
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"building {row.name}", "spandrel") from error
    parameters = list(network.parameters())
    everything = sum(p.numel() for p in parameters) / 1e3
    # Some authors count only weights, without biases and slopes, which are vectors.
    weights = sum(p.numel() for p in parameters if p.ndim > 1) / 1e3
    if not size_matches((everything, weights), row.kparams):
        raise ExportError(
            f"the size does not match: built {everything:.0f} K parameters, "
            f"published {row.kparams:.0f} K"
        )
    return network


def _without_training_branches(network: nn.Module) -> nn.Module:
    """Fold the branches of SPAN once, as a deployment would; its own code does so in every call."""
    for name, module in list(network.named_modules()):
        folded = getattr(module, "eval_conv", None)
        if folded is not None:
            cast(Any, module).update_params()
            parent = network.get_submodule(name.rpartition(".")[0])
            slope = nn.LeakyReLU(0.05) if cast(Any, module).has_relu else nn.Identity()
            setattr(parent, name.rpartition(".")[2], nn.Sequential(folded, slope))
    return network


class Uncollapsed(nn.Module):
    """A collapsible convolution, run as its three convolutions and the identity."""

    def __init__(self, trained: CollapsibleConv) -> None:
        super().__init__()
        hidden, inputs = trained.expand.shape
        outputs = trained.project.shape[0]
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.identity = trained.eye is not None
        with torch.no_grad():
            self.expand.weight.copy_(trained.expand[:, :, None, None])
            self.mix.weight.copy_(trained.mix)
            self.project.weight.copy_(trained.project[:, :, None, None])
            cast(Tensor, self.project.bias).copy_(trained.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the same as the collapsible convolution, on ``(B, C, H, W)``."""
        out = self.project(self.mix(self.expand(x)))
        return x + out if self.identity else out


def uncollapsed(network: nn.Module) -> nn.Module:
    """Replace every collapsible convolution of ``network``, in place, by its branches.

    This shows what deployment would cost without folding. Exporting the trained network as it is
    would not: its forward pass folds the kernels already.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, CollapsibleConv):
            parent = network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], Uncollapsed(module))
    return network.eval()


def to_onnx(network: nn.Module, height: int, width: int, channels: int = 3) -> bytes:
    """Export to ONNX at a fixed input size, with the scale in the metadata.

    Args:
        network: in evaluation mode; upscales ``(1, channels, height, width)`` by 2.
        height: of the input, in pixels.
        width: of the input, in pixels.
        channels: of the input.

    Raises:
        ExportError: PyTorch cannot export it, or the graph is too large for one file.
    """
    disabled = logging.root.manager.disable
    # The error is reported in one line; PyTorch would print the whole graph.
    logging.disable(logging.CRITICAL)
    try:
        chatter = io.StringIO()
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(chatter),
            contextlib.redirect_stderr(chatter),
        ):
            warnings.simplefilter("ignore")
            x = torch.rand(1, channels, height, width)
            program = torch.onnx.export(network, (x,), dynamo=True, verbose=False)
            if program is None:
                raise ExportError("PyTorch returned no program")
            model = program.model_proto
            helper.set_model_props(model, {"scale": str(SCALE)})
            return model.SerializeToString()
    except ExportError:
        raise
    except Exception as error:  # the exporter raises many unrelated types
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:120]
        raise ExportError(f"PyTorch cannot export it: {reason}") from error
    finally:
        logging.disable(disabled)


def least_seconds(row: PeerRow, height: int, width: int, peak: float) -> float:
    """Duration of a call whose multiply-adds all run at ``peak`` floating-point operations/s."""
    return 2e9 * row.least_gmacs(height, width) / peak if peak else math.inf
