"""The network family as one table.

To add a variant, add a row. Other modules read the properties of a row; none of them asks for the
name of a variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paragonsr2.errors import OptionError

SCALES = (2, 3, 4, 8)

BlockKind = Literal["nano", "gate", "paragon"]


@dataclass(frozen=True)
class Variant:
    """One row of the family.

    Attributes:
        block: kind of block in the body.
        channels: width of the body.
        groups: number of residual groups.
        blocks: blocks per group.
        gated: whether a gate map scales the deep features.
        staged: upsample to x4 and x8 in steps of x2, with a convolution between them.
        attending: indices of the groups in which one block is window attention at half resolution.
        window: side of the attention window, in half-resolution pixels; 0 without attention.
        attention_width: width of queries, keys and values; 0 without attention.
        global_pool: whether each group ends in a channel gate that pools the whole image.
        ffn: hidden width of the gated feed-forward part; 0 without one.
        halo: margin read around a tile, in pixels; 0 uses the whole receptive field, which makes
            tiles exact.
        budget: highest cost allowed at x2, in thousand multiply-adds per low-resolution pixel.
        critic_feat: ``num_feat`` of the MUNet that trains it.
        critic_mult: ``ch_mult`` of the MUNet that trains it.
        perceptual_alpha: lowest and highest ``upsampler_alpha`` for perceptual training. Fidelity
            training uses 0.
        purpose: what it is for, in a few words.
    """

    block: BlockKind
    channels: int
    groups: int
    blocks: int
    gated: bool
    staged: bool
    attending: tuple[int, ...]
    window: int
    attention_width: int
    global_pool: bool
    ffn: int
    halo: int
    budget: int
    critic_feat: int
    critic_mult: tuple[int, ...]
    perceptual_alpha: tuple[float, float]
    purpose: str


VARIANTS: dict[str, Variant] = {
    "realtime": Variant(
        block="nano", channels=16, groups=2, blocks=3, gated=False, staged=False,
        attending=(), window=0, attention_width=0, global_pool=False, ffn=0, halo=0, budget=18,
        critic_feat=32, critic_mult=(1, 2, 2), perceptual_alpha=(0.3, 0.6),
        purpose="video, anime; integrated GPUs, mobile",
    ),
    "stream": Variant(
        block="gate", channels=32, groups=2, blocks=3, gated=True, staged=False,
        attending=(), window=0, attention_width=0, global_pool=False, ffn=32, halo=0, budget=200,
        critic_feat=32, critic_mult=(1, 2, 2), perceptual_alpha=(0.0, 0.0),
        purpose="compressed video",
    ),
    "photo": Variant(
        block="paragon", channels=64, groups=4, blocks=4, gated=True, staged=True,
        attending=(1, 3), window=16, attention_width=32, global_pool=False, ffn=16, halo=48,
        budget=900,
        critic_feat=64, critic_mult=(1, 2, 4, 8), perceptual_alpha=(0.3, 0.6),
        purpose="photographs",
    ),
    "pro": Variant(
        block="paragon", channels=96, groups=6, blocks=6, gated=True, staged=True,
        attending=(0, 1, 2, 3, 4, 5), window=16, attention_width=96, global_pool=True, ffn=40,
        halo=32, budget=4000,
        critic_feat=64, critic_mult=(1, 2, 4, 8), perceptual_alpha=(0.3, 0.6),
        purpose="archive, offline",
    ),
}  # fmt: skip

ARCH_PREFIX = "paragonsr2_"


def variant_name(name: str) -> str:
    """Return the short name for ``photo`` or ``paragonsr2_photo``.

    Raises:
        OptionError: no variant has this name.
    """
    short = name.removeprefix(ARCH_PREFIX)
    if short not in VARIANTS:
        raise OptionError(f"unknown variant {name[:40]!r}; choose one of {', '.join(VARIANTS)}")
    return short
