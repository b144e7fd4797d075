"""Batches of crops, prepared ahead and moved to the device."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch
from torch import Tensor

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import TrainingError
from paragonsr2.training.config import DataConfig
from paragonsr2.training.data import CropSampler
from paragonsr2.training.prefetch import prefetch
from paragonsr2.training.processes import Processes


def device_batches(
    sampler: CropSampler,
    data: DataConfig,
    parts: int,
    first: int,
    processes: Processes,
    device: torch.device,
) -> Generator[tuple[Tensor, Tensor]]:
    """This process's share of every batch from step ``first`` on, prepared ahead.

    Args:
        sampler: of the crops.
        data: sizes of batches and crops, and the number of worker threads.
        parts: number of parts that each share is cut into.
        first: step of the first batch.
        processes: that share the batches.
        device: where the batches go.

    Yields:
        LR ``(B, 3, patch, patch)`` and HR ``(B, 3, patch * scale, patch * scale)`` in 0..1.

    Raises:
        TrainingError: a batch does not divide by the number of processes and parts.
    """
    world, rank = processes.world, processes.rank
    for batch in (data.batch, *(stage.batch for stage in data.grow)):
        if batch % (world * parts):
            raise TrainingError(
                f"data.batch {batch} does not divide by {world} processes and "
                f"schedule.accumulate {parts}: parts of unequal size would weigh differently"
            )

    def crops(step: int) -> tuple[Pixels8, Pixels8]:
        batch, patch = data.crops_at(step)
        share = batch // world
        return sampler.batch(step, range(rank * share, (rank + 1) * share), patch)

    with contextlib.closing(prefetch(crops, first, data.workers)) as prepared:
        for lr, hr in prepared:
            yield on_device(lr, device), on_device(hr, device)


def on_device(pixels: Pixels8, device: torch.device) -> Tensor:
    """``(B, H, W, 3)`` uint8 as a channels-last float batch in 0..1."""
    batch = torch.from_numpy(pixels).to(device, non_blocking=True)
    return batch.permute(0, 3, 1, 2).float() / 255.0
