"""Clips of :mod:`paragonsr2.training.video_degradation`, encoded once and cached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import TrainingError
from paragonsr2.training.data import Picture
from paragonsr2.training.degradation_config import CodecConfig
from paragonsr2.training.region_cache import RegionCache
from paragonsr2.training.video_degradation import (
    LEAST_SIDE,
    ClipPlan,
    check_codecs,
    load_av,
    make_clip,
    plan_clip,
)

#: Part of the name of cached clips; raise it when a change makes clips come out different.
CLIP_VERSION = 1


class ClipCache(RegionCache):
    """Encoded clips on disk, identified by everything that they were made from.

    Args:
        folder: the cache.
        pictures: to make clips of; those with a given LR, or too small, are left out.
        settings: of the encoders.
        scale: of the pictures.
        patch: side of the crops that clips must hold, in low-resolution pixels.
        seed: of the run.

    Raises:
        MissingExtraError: PyAV is not installed.
        TrainingError: an encoder is missing, clips are smaller than crops, or no picture is
            large enough.
    """

    noun, verb = "clip", "encoding"

    def __init__(
        self,
        folder: Path,
        pictures: Sequence[Picture],
        settings: CodecConfig,
        scale: int,
        patch: int,
        seed: int,
    ) -> None:
        check_codecs(list(settings.mix))
        patch += patch % 2  # sides of clips are even
        if settings.side[0] < patch:
            raise TrainingError(
                f"clips of {settings.side[0]} pixels cannot hold crops of {patch}; raise "
                "degradation.codec.side, or lower data.patch"
            )
        least = max(LEAST_SIDE, patch)
        usable = [p for p in pictures if not p.given and min(p.size) >= least]
        if not usable:
            raise TrainingError(
                f"no training image without given low resolution has {least * scale} pixels on "
                "both sides: too small for clips; take degradation.kind bicubic"
            )
        self.settings = settings
        versions = (CLIP_VERSION, load_av().__version__)
        made_from = (versions, settings.model_dump_json())
        super().__init__(folder / "clips", usable, made_from, scale, seed)

    def plan(self, index: int) -> ClipPlan:
        """See :func:`plan_clip`."""
        return plan_clip(index, self.pictures, self.chances, self.settings, self.seed)

    def make(self, index: int) -> Pixels8:
        """The kept frame of a clip; see :func:`make_clip`."""
        plan = self.plan(index)
        return make_clip(plan, self.pictures[plan.picture])
