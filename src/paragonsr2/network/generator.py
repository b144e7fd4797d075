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
from contextlib import AbstractContextManager, nullcontext
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
from paragonsr2.network.layers import ChannelGate
from paragonsr2.variants import SCALES, VARIANTS, Variant, variant_name

# Context of the Gate blocks widens within each group.
GATE_DILATIONS = (1, 2, 4)

# Every second Nano block, counted over the whole body, sees along lines of 9 taps, 2 apart.
NANO_LINE, NANO_DILATION = 9, 2

# The block that attends, in those groups of a Paragon body that do; all others are gated
# convolutions.
ATTENDING_BLOCK = 1

# Where detail_gain starts. The last convolution is then ten times as large as it would be at 1,
# so Adam's steps, whose size does not depend on that of the weight, disturb the picture ten times
# less. At 1 the network hushed that noise by closing the gate map, to 0.501 after 5,000 steps.
DETAIL_GAIN = 0.1

MAX_WINDOW = 64
MAX_EXPANSION = 16

#: Scalar in every saved state: the base path, which no shape tells.
ALPHA_KEY = "upsampler_alpha"
# Decimals that survive each dtype: tools that halve a file halve this scalar with it.
_ALPHA_DECIMALS = {torch.float64: 6, torch.float32: 6, torch.float16: 3, torch.bfloat16: 2}


class StoredAlpha(NamedTuple):
    """The ``upsampler_alpha`` that a state carries.

    Attributes:
        value: as it was given, to the decimals that its dtype holds.
        tolerance: two alphas nearer than this are the same.
    """

    value: float
    tolerance: float


def read_alpha(stored: Tensor) -> StoredAlpha:
    """Decode the scalar :data:`ALPHA_KEY` of a state.

    Raises:
        OptionError: it is no float in 0..1.
    """
    decimals = _ALPHA_DECIMALS.get(stored.dtype)
    if decimals is None or stored.ndim or not 0.0 <= float(stored) <= 1.0:
        raise OptionError(
            f"{ALPHA_KEY} is stored as {stored.dtype} {tuple(stored.shape)}; "
            "it must be one float from 0 to 1"
        )
    return StoredAlpha(round(float(stored), decimals), 10.0**-decimals)


class Paths(NamedTuple):
    """What the two paths hold before they are summed.

    Attributes:
        base: the classical enlargement, ``(B, 3 * scale**2, H, W)`` before its shuffle, or
            ``(B, 3, H * scale, W * scale)`` where the upsampler works in stages.
        detail: the same shape, what the network adds.
        gate: ``(B, 1, H, W)`` in 0.5..1.5, or None in variants without a gate map.
    """

    base: Tensor
    detail: Tensor
    gate: Tensor | None


@runtime_checkable
class Collapsible(Protocol):
    """A module that is trained in one form and deployed in a simpler one."""

    def collapsed(self) -> nn.Module:
        """The simpler form."""
        ...


class Group(nn.Module):
    """A run of blocks; the residual around it is the caller's."""

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
        upsampler_alpha: base path, 0 = Magic Kernel .. 1 = Magic Kernel Sharp 2021.
        window_size: attention window; None takes the variant's.
        expansion: hidden width of collapsible convolutions while training.

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
        # The bounds keep a hostile checkpoint from asking for all memory.
        if bool(window) != bool(variant.window) or window % 2 or window > MAX_WINDOW:
            mend = f"give an even number up to {MAX_WINDOW}"
            raise OptionError(
                f"window_size {window} does not fit: "
                + (mend if variant.window else "this variant has no attention")
            )
        if not 1 <= expansion <= MAX_EXPANSION:
            raise OptionError(f"expansion is {expansion}; give 1 to {MAX_EXPANSION}")
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
        #: Pixels beyond which the input cannot matter; None where the whole image matters.
        self.reach: int | None = None if variant.global_pool else max(reach, self.base.reach)
        #: Tiles are read with this margin, and from multiples of :attr:`tile_multiple`.
        self.tile_halo = variant.halo or max(reach, self.base.reach)
        # Attention works at half resolution, so a window is twice as wide here.
        self.tile_multiple = 2 * window or 1
        # Features kept for fusion, what ONNX Runtime holds besides (as measured), the output;
        # attention scores.
        wide = c * (variant.groups + 16) + 9 * scale**2
        #: Working memory of a deployed pass, in floats per input pixel, roughly.
        heads = variant.attention_width // HEAD_DIM
        self.floats_per_pixel = wide + 2 * heads * window**2 // 4

    def set_checkpointing(self, on: bool) -> None:
        """Trade time for memory while training: recompute each block in the backward pass."""
        for group in self.groups:
            cast(Group, group).checkpointing = on

    def paths(self, x: Tensor) -> Paths:
        """Both paths of ``(B, 3, H, W)``, unsummed: for training logs and pictures."""
        # The same edge as the base path has: a zero border would be a black frame.
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
        with _no_autocast(x):
            base = self.base.phases(x) if self._direct else self.base(x)
        if not self._direct:
            detail = F.pixel_shuffle(detail, self.upsampler.last_scale)
        return Paths(base, detail, gate)

    def join(self, paths: Paths) -> Tensor:
        """The picture ``(B, 3, H * scale, W * scale)`` that both paths add up to."""
        total = paths.base + paths.detail
        # Where one shuffle does it all, adding before it saves a pass over the large picture.
        return F.pixel_shuffle(total, self.scale) if self._direct else total

    @property
    def _direct(self) -> bool:
        return self.upsampler.last_scale == self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge a batch of pictures.

        Args:
            x: RGB ``(B, 3, H, W)``, nominally 0..1, any float dtype, any H and W from 1.

        Returns:
            ``(B, 3, H * scale, W * scale)``, dtype of ``x``, not clipped.
        """
        return self.join(self.paths(x))

    @torch.no_grad()
    def collapse(self) -> ParagonSR2:
        """The deployed network: the same function in fewer, plainer layers; self is unchanged."""
        deployed = copy.deepcopy(self)
        _collapse_children(deployed)
        if deployed.detail_gain is not None:
            deployed.upsampler.last.weight.mul_(deployed.detail_gain)
            if deployed.upsampler.last.bias is not None:
                deployed.upsampler.last.bias.mul_(deployed.detail_gain)
            deployed.detail_gain = None
        return deployed.eval()

    @property
    def is_collapsed(self) -> bool:
        """Whether this is the deployed form."""
        return self.detail_gain is None

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        # Not a buffer: a cast to half would round it, and exported graphs would hold it unused.
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
        # States saved before there was this key lack it, and load all the same.
        weights = dict(state_dict)
        stored = weights.pop(prefix + ALPHA_KEY, None)
        if stored is not None:
            try:
                alpha = read_alpha(stored)
                if abs(alpha.value - self.upsampler_alpha) > alpha.tolerance:
                    raise OptionError(
                        f"the state is of upsampler_alpha {alpha.value}, the network of "
                        f"{self.upsampler_alpha}; build the network with the state's"
                    )
            except OptionError as error:
                error_msgs.append(str(error))
        super()._load_from_state_dict(
            weights, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _no_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Keep what is not learned in the dtype of ``x``: bfloat16 would round it to 8 bits."""
    device = x.device.type
    # The device that costs are counted on knows no autocast, and an exported graph holds none.
    if device == "meta" or not torch.is_autocast_enabled(device):
        return nullcontext()
    return cast(AbstractContextManager[None], torch.autocast(device, enabled=False))


def _collapse_children(parent: nn.Module) -> None:
    """Put the simpler form in the place of every module that has one; it sees to its own parts."""
    for name, child in list(parent.named_children()):
        if isinstance(child, Collapsible):
            setattr(parent, name, child.collapsed())
        else:
            _collapse_children(child)


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
        OptionError: unknown variant or option.
        ScaleError: ``scale`` is not supported.
    """
    unknown = sorted(set(options) - set(NETWORK_OPTIONS))
    if unknown:
        raise OptionError(
            f"unknown option {', '.join(unknown)}; a network takes {', '.join(NETWORK_OPTIONS)}"
        )
    row = VARIANTS[variant_name(variant)]
    return cast(Callable[..., ParagonSR2], ParagonSR2)(row, scale, **options)


def channels_last(network: ParagonSR2) -> ParagonSR2:
    """``network`` itself with its weights in the memory format that convolutions run best in."""
    # The stubs of torch do not know that a module takes a memory format.
    return cast(Any, network).to(memory_format=torch.channels_last)


def paragonsr2_realtime(scale: int = 4, **options: object) -> ParagonSR2:
    """Realtime: plain convolutions one after the other once deployed. See :func:`build`."""
    return build("realtime", scale, **options)


def paragonsr2_stream(scale: int = 4, **options: object) -> ParagonSR2:
    """Stream: gated blocks that see far, for compressed video. See :func:`build`."""
    return build("stream", scale, **options)


def paragonsr2_photo(scale: int = 4, **options: object) -> ParagonSR2:
    """Photo: window attention, for photographs. See :func:`build`."""
    return build("photo", scale, **options)


def paragonsr2_pro(scale: int = 4, **options: object) -> ParagonSR2:
    """Pro: the deepest, with globally pooled channel gates. See :func:`build`."""
    return build("pro", scale, **options)
