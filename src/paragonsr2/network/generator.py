"""ParagonSR2: the two-path network. Start reading here.

::

                ┌── MagicKernelSharp2021 (fixed, alpha) ────────────┐
    LR (B,3,H,W)┤                                                   + ── HR (B,3,sH,sW)
                └─ conv_in ─ groups × blocks ─ fuse ─ gate ─ upsampler ─ × detail_gain
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from paragonsr2.errors import OptionError, ScaleError
from paragonsr2.network.attention import HEAD_DIM, WindowAttention
from paragonsr2.network.base import MagicKernelSharp2021
from paragonsr2.network.blocks import GateBlock, HalfResolution, NanoBlock
from paragonsr2.network.heads import ContentAwareDetailProcessor, Fuse, Upsampler
from paragonsr2.network.layers import ChannelGate, without_autocast
from paragonsr2.variants import SCALES, VARIANTS, Variant, variant_name

# Dilations of the Gate blocks in a group: each sees further than the one before.
GATE_DILATIONS = (1, 2, 4)

# Every second Nano block, counted over the whole body, sees along lines of 9 taps spaced by 2.
NANO_LINE, NANO_DILATION = 9, 2

# Index of the attention block in the groups of a Paragon body that have one. All other blocks are
# gated convolutions.
ATTENDING_BLOCK = 1

# Where detail_gain starts. The last convolution is then ten times as large as it would be at 1,
# so Adam's steps, whose size does not depend on that of the weight, disturb the picture ten times
# less. At 1 the network hushed that noise by closing the gate map, to 0.501 after 5,000 steps.
DETAIL_GAIN = 0.1

MAX_WINDOW = 64
MAX_EXPANSION = 16

#: Key of a scalar in every saved state. It holds the base path, which no tensor shape reveals.
ALPHA_KEY = "upsampler_alpha"
# Decimals that survive in each dtype. Tools that convert a file to half precision convert this too.
_ALPHA_DECIMALS = {torch.float64: 6, torch.float32: 6, torch.float16: 3, torch.bfloat16: 2}


class StoredAlpha(NamedTuple):
    """The ``upsampler_alpha`` found in a state.

    Attributes:
        value: the alpha, rounded to the decimals that its dtype can hold.
        tolerance: alphas that differ by less than this are equal.
    """

    value: float
    tolerance: float


def read_alpha(stored: Tensor) -> StoredAlpha:
    """Decode the scalar stored under :data:`ALPHA_KEY`.

    Raises:
        OptionError: the tensor is not a float scalar in 0..1.
    """
    decimals = _ALPHA_DECIMALS.get(stored.dtype)
    if decimals is None or stored.ndim or not 0.0 <= float(stored) <= 1.0:
        raise OptionError(
            f"{ALPHA_KEY} is a {stored.dtype} tensor of shape {tuple(stored.shape)}; "
            "it must be a single float from 0 to 1"
        )
    return StoredAlpha(round(float(stored), decimals), 10.0**-decimals)


class Paths(NamedTuple):
    """The two paths before they are summed.

    Attributes:
        base: classical enlargement. Its shape is ``(B, 3 * scale**2, H, W)``, before PixelShuffle,
            or ``(B, 3, H * scale, W * scale)`` if the upsampler works in stages.
        detail: what the network adds, in the same shape.
        gate: gate map ``(B, 1, H, W)`` in 0.5..1.5, or None for variants without one.
    """

    base: Tensor
    detail: Tensor
    gate: Tensor | None


@runtime_checkable
class Collapsible(Protocol):
    """A module that trains in one form and deploys in a simpler one."""

    def collapsed(self) -> nn.Module:
        """Return the simpler form."""
        ...

    def take(self, deployed: Any) -> None:
        """Take the weights of the simpler form: what :meth:`collapsed` returns then is like it."""
        ...


class Group(nn.Module):
    """A sequence of blocks. The caller adds the residual connection around it."""

    def __init__(self, variant: Variant, index: int, window: int, expansion: int) -> None:
        super().__init__()
        c = variant.channels
        first = index * variant.blocks
        blocks: list[NanoBlock | GateBlock | HalfResolution] = []
        for i in range(variant.blocks):
            match variant.block:
                case "nano":
                    line = NANO_LINE * ((first + i) % 2)
                    blocks.append(NanoBlock(c, expansion, line=line, dilation=NANO_DILATION))
                case "gate":
                    dilation = GATE_DILATIONS[i % len(GATE_DILATIONS)]
                    blocks.append(GateBlock(c, variant.ffn, dilation, expansion))
                case "paragon" if i == ATTENDING_BLOCK and index in variant.attending:
                    # Every second attention shifts.
                    shift = variant.attending.index(index) % 2 * (window // 2)
                    attention = WindowAttention(c, variant.attention_width, window, shift)
                    blocks.append(HalfResolution(c, attention, attention.reach))
                case "paragon":
                    blocks.append(GateBlock(c, variant.ffn, 1, expansion))
        self.blocks = nn.ModuleList(blocks)
        if variant.global_pool:
            self.blocks.append(ChannelGate(c))
        self.reach = sum(block.reach for block in blocks)
        self.checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = cast(Tensor, checkpoint(block, x, use_reentrant=False))
            else:
                x = block(x)
        return x


class ParagonSR2(nn.Module):
    """The two-path super-resolution network of one variant and scale.

    Args:
        variant: a row of :data:`paragonsr2.variants.VARIANTS`.
        scale: 2, 3, 4 or 8.
        upsampler_alpha: base path, from 0 (Magic Kernel) to 1 (Magic Kernel Sharp 2021).
        window_size: side of the attention window; None uses the variant's.
        expansion: hidden width of collapsible convolutions during training, as a multiple of
            their input width; 0 trains each as the one it deploys as.

    Raises:
        ScaleError: ``scale`` is not supported.
        OptionError: an option does not fit the variant.
    """

    def __init__(
        self,
        variant: Variant,
        scale: int = 4,
        *,
        upsampler_alpha: float = 0.0,
        window_size: int | None = None,
        expansion: int = 2,
    ) -> None:
        super().__init__()
        if scale not in SCALES:
            raise ScaleError(f"scale {scale} is not one of {', '.join(map(str, SCALES))}")
        window = variant.window if window_size is None else window_size
        # Without these bounds a hostile checkpoint could request all memory.
        if bool(window) != bool(variant.window) or window % 2 or window > MAX_WINDOW:
            fix = f"use an even number up to {MAX_WINDOW}"
            raise OptionError(
                f"window_size cannot be {window}: "
                + (fix if variant.window else "this variant has no attention")
            )
        if not 0 <= expansion <= MAX_EXPANSION:
            raise OptionError(f"expansion is {expansion}; use 0 to {MAX_EXPANSION}")
        c = variant.channels
        self.scale = scale
        self.upsampler_alpha = upsampler_alpha
        self.window_size = window
        self.base = MagicKernelSharp2021(scale, upsampler_alpha)
        self.conv_in = nn.Conv2d(3, c, 3)
        groups = [Group(variant, i, window, expansion) for i in range(variant.groups)]
        self.groups = nn.ModuleList(groups)
        self.fuse = Fuse(c, variant.groups)
        self.gate = ContentAwareDetailProcessor(c) if variant.gated else None
        self.upsampler = Upsampler(c, scale, staged=variant.staged)
        self.detail_gain: nn.Parameter | None = nn.Parameter(torch.tensor(DETAIL_GAIN))

        reach = 1 + sum(group.reach for group in groups) + self.upsampler.reach
        reach += self.gate.reach if self.gate is not None else 0
        #: Receptive field: pixels beyond this distance cannot change the output. None means that
        #: every pixel of the image can.
        self.reach: int | None = None if variant.global_pool else max(reach, self.base.reach)
        #: Margin read around a tile. Tiles start at multiples of :attr:`tile_multiple`.
        self.tile_halo = variant.halo or max(reach, self.base.reach)
        # Attention works at half resolution, where a window covers twice as many input pixels.
        self.tile_multiple = 2 * window or 1
        # Features kept for fusion, what ONNX Runtime holds besides (measured), and the output.
        wide = c * (variant.groups + 16) + 9 * scale**2
        #: Approximate working memory of a deployed pass, in floats per input pixel. The second
        #: term counts attention scores.
        heads = variant.attention_width // HEAD_DIM
        self.floats_per_pixel = wide + 2 * heads * window**2 // 4

    def set_checkpointing(self, on: bool) -> None:
        """Save training memory at the cost of time: recompute each block in the backward pass."""
        for group in self.groups:
            cast(Group, group).checkpointing = on

    def paths(self, x: Tensor) -> Paths:
        """Run both paths on ``(B, 3, H, W)`` without summing them, for training logs and plots."""
        # Pad as the base path does. Zeros would put a black frame around the picture.
        shallow = self.conv_in(F.pad(x, (1, 1, 1, 1), mode="replicate"))
        outputs = [shallow]
        *groups, last = self.groups
        for group in groups:
            outputs.append(outputs[-1] + group(outputs[-1]))
        features = self.fuse(outputs, last(outputs[-1]))
        gate = None
        if self.gate is not None:
            gate = self.gate(features)
            features = features * gate
        detail = self.upsampler(features)
        if self.detail_gain is not None:
            detail = detail * self.detail_gain
        with without_autocast(x):
            base = self.base.phases(x) if self._direct else self.base(x)
        if not self._direct:
            detail = F.pixel_shuffle(detail, self.upsampler.last_scale)
        return Paths(base, detail, gate)

    def join(self, paths: Paths) -> Tensor:
        """Sum the paths to the picture ``(B, 3, H * scale, W * scale)``."""
        total = paths.base + paths.detail
        # With a single shuffle, adding before it saves one pass over the large picture.
        return F.pixel_shuffle(total, self.scale) if self._direct else total

    @property
    def _direct(self) -> bool:
        return self.upsampler.last_scale == self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge a batch of pictures.

        Args:
            x: RGB ``(B, 3, H, W)``, nominally 0..1, any float dtype; H and W may be 1 or more.

        Returns:
            ``(B, 3, H * scale, W * scale)`` in the dtype of ``x``, not clipped.
        """
        return self.join(self.paths(x))

    @torch.no_grad()
    def collapse(self) -> ParagonSR2:
        """Return the deployed network: the same function in fewer, simpler layers.

        This network stays as it is.
        """
        deployed = copy.deepcopy(self)
        _collapse_children(deployed)
        if deployed.detail_gain is not None:
            deployed.upsampler.last.weight.mul_(deployed.detail_gain)
            if deployed.upsampler.last.bias is not None:
                deployed.upsampler.last.bias.mul_(deployed.detail_gain)
            deployed.detail_gain = None
        return deployed.eval()

    @torch.no_grad()
    def take(self, deployed: ParagonSR2) -> None:
        """Take the weights of a deployed network of the same kind, to train them further.

        Where the trained form has more weights than the deployed one, the others keep theirs.

        Args:
            deployed: of the same variant, scale and window.
        """
        assert self.detail_gain is not None
        _take_children(self, deployed)
        last = self.upsampler.last
        last.weight.div_(self.detail_gain)
        if last.bias is not None:
            last.bias.div_(self.detail_gain)

    @property
    def is_collapsed(self) -> bool:
        """Whether this is the deployed form."""
        return self.detail_gain is None

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        # Not a buffer: casting to half would round it, and exported graphs would carry it unused.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + ALPHA_KEY] = torch.tensor(self.upsampler_alpha, dtype=torch.float32)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # States from before this key existed load without it.
        weights = dict(state_dict)
        stored = weights.pop(prefix + ALPHA_KEY, None)
        if stored is not None:
            try:
                alpha = read_alpha(stored)
                if abs(alpha.value - self.upsampler_alpha) > alpha.tolerance:
                    raise OptionError(
                        f"the weights were trained with upsampler_alpha {alpha.value}, but the "
                        f"network has {self.upsampler_alpha}; build it with {alpha.value}"
                    )
            except OptionError as error:
                error_msgs.append(str(error))
        super()._load_from_state_dict(
            weights, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _collapse_children(parent: nn.Module) -> None:
    """Replace every collapsible module by its simpler form, which handles its own children."""
    for name, child in list(parent.named_children()):
        if isinstance(child, Collapsible):
            setattr(parent, name, child.collapsed())
        else:
            _collapse_children(child)


def _take_children(trained: nn.Module, deployed: nn.Module) -> None:
    """The reverse of :func:`_collapse_children`."""
    own = dict(deployed.named_parameters(recurse=False))
    for name, parameter in trained.named_parameters(recurse=False):
        if name in own:
            parameter.copy_(own[name])
    for name, child in trained.named_children():
        if isinstance(child, Collapsible):
            child.take(deployed.get_submodule(name))
        else:
            _take_children(child, deployed.get_submodule(name))


NETWORK_OPTIONS = tuple(
    name
    for name, parameter in inspect.signature(ParagonSR2.__init__).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
)


def build(variant: str, scale: int = 4, **options: object) -> ParagonSR2:
    """Build a variant by name.

    Args:
        variant: ``realtime``, ``stream``, ``photo`` or ``pro``, with or without the
            ``paragonsr2_`` prefix.
        scale: 2, 3, 4 or 8.
        options: the keyword options of :class:`ParagonSR2`.

    Raises:
        OptionError: the variant or an option is unknown.
        ScaleError: ``scale`` is not supported.
    """
    unknown = sorted(set(options) - set(NETWORK_OPTIONS))
    if unknown:
        raise OptionError(
            f"unknown option {', '.join(unknown)}; the options are {', '.join(NETWORK_OPTIONS)}"
        )
    row = VARIANTS[variant_name(variant)]
    return cast(Callable[..., ParagonSR2], ParagonSR2)(row, scale, **options)


def channels_last(network: ParagonSR2) -> ParagonSR2:
    """Put the weights of ``network`` in the memory format that convolutions run fastest in.

    Returns the same object.
    """
    # The type stubs of torch lack this argument of Module.to.
    return cast(Any, network).to(memory_format=torch.channels_last)


def paragonsr2_realtime(scale: int = 4, **options: object) -> ParagonSR2:
    """Build Realtime, which deploys as a plain stack of convolutions. See :func:`build`."""
    return build("realtime", scale, **options)


def paragonsr2_stream(scale: int = 4, **options: object) -> ParagonSR2:
    """Build Stream, gated blocks with a wide view for compressed video. See :func:`build`."""
    return build("stream", scale, **options)


def paragonsr2_photo(scale: int = 4, **options: object) -> ParagonSR2:
    """Build Photo, gated blocks and window attention for photographs. See :func:`build`."""
    return build("photo", scale, **options)


def paragonsr2_pro(scale: int = 4, **options: object) -> ParagonSR2:
    """Build Pro, the deepest, with globally pooled channel gates. See :func:`build`."""
    return build("pro", scale, **options)
