"""Training pictures that lie on a device, where crops are cut as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.arrays.resize import contributions
from paragonsr2.training.pictures import decode

#: Sides of a picture are cropped to multiples of it, which suits every scale.
MULTIPLE = 24


def load(job: tuple[Path, int]) -> Pixels8:
    """Decode a file, so many times smaller: RGB ``(H, W, 3)`` uint8."""
    path, factor = job
    rgb = decode(path.read_bytes(), factor)
    height, width = (side - side % MULTIPLE for side in rgb.shape[:2])
    return np.ascontiguousarray(rgb[:height, :width])


def _axis(length: int, scale: int, device: torch.device) -> Tensor:
    """The matrix ``(length / scale, length)`` that shrinks along one axis."""
    index, weight = contributions(length, length // scale, 1.0 / scale)
    matrix = np.zeros((length // scale, length))
    np.add.at(matrix, (np.arange(length // scale)[:, None], index), weight)
    return torch.from_numpy(matrix).to(device)


def shrink(hr: Tensor, scale: int) -> Tensor:
    """MATLAB's bicubic on ``(H, W, 3)`` uint8 of any device, rounded after each pass."""
    height, width = hr.shape[:2]
    x = hr.double()
    x = torch.einsum("oh,hwc->owc", _axis(height, scale, hr.device), x)
    x = (x + 0.5).floor().clamp(0, 255)
    x = torch.einsum("ow,hwc->hoc", _axis(width, scale, hr.device), x)
    return (x + 0.5).floor().clamp(0, 255).byte()


class Resident:
    """Pairs of pictures of one scale on the device; crops are cut there.

    Args:
        pictures: ``(H, W, 3)`` uint8 with sides that are multiples of the scale.
        weights: one per picture: how often a pixel of it is sampled.
        scale: of the pairs.
        device: where they go.
        given: low resolutions by the index of their picture; the others are shrunk.
    """

    def __init__(
        self,
        pictures: Sequence[Pixels8],
        weights: Sequence[float],
        scale: int,
        device: torch.device,
        given: Mapping[int, Pixels8],
    ) -> None:
        sides = torch.tensor([p.shape[:2] for p in pictures])
        self.scale, self.device, self.sides = scale, device, sides.to(device)
        area = sides.prod(1).double() * torch.tensor(weights, dtype=torch.float64)
        self.cumulative = (area / area.sum()).cumsum(0).float().to(device)
        self.megapixels = float(sides.prod(1).sum()) / 1e6
        large = [torch.from_numpy(picture).to(device) for picture in pictures]
        small = [
            torch.from_numpy(given[index]).to(device) if index in given else shrink(hr, scale)
            for index, hr in enumerate(large)
        ]
        self.hr, self.lr = self._flat(large), self._flat(small)

    def _flat(self, pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """All samples of all pictures, and where each picture starts."""
        sizes = torch.tensor([0, *(picture.numel() for picture in pictures)])
        flat = torch.cat([picture.flatten() for picture in pictures])
        return flat, sizes.cumsum(0)[:-1].to(self.device)

    def crops(self, draws: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """LR ``(B, 3, side, side)`` and HR of random places, turned and flipped, in 0..1.

        Args:
            draws: ``(B, 4)`` in 0..1: picture, row, column, turn.
            side: of a low-resolution crop.
        """
        which = torch.searchsorted(self.cumulative, draws[:, 0].contiguous(), right=True)
        which = which.clamp_max(len(self.cumulative) - 1)
        scale, sides = self.scale, self.sides[which] // self.scale
        corner = (draws[:, 1:3] * (sides - side + 1)).long()
        corner = torch.minimum(corner, sides - side)
        turn = (draws[:, 3] * 8).long().clamp_max(7)
        lr = self._cut(self.lr, which, corner, sides[:, 1], turn, side)
        hr = self._cut(self.hr, which, corner * scale, sides[:, 1] * scale, turn, side * scale)
        return lr, hr

    def _cut(
        self,
        pictures: tuple[Tensor, Tensor],
        which: Tensor,
        corner: Tensor,
        width: Tensor,
        turn: Tensor,
        side: int,
    ) -> Tensor:
        flat, starts = pictures
        line = torch.arange(side, device=self.device)
        down, right = line.view(1, side, 1), line.view(1, 1, side)
        upside_down, mirrored, swapped = (
            (turn >> bit & 1).bool().view(-1, 1, 1) for bit in range(3)
        )
        row, column = torch.where(swapped, right, down), torch.where(swapped, down, right)
        row = torch.where(upside_down, side - 1 - row, row)
        column = torch.where(mirrored, side - 1 - column, column)
        pixel = (row + corner[:, 0].view(-1, 1, 1)) * width.view(-1, 1, 1)
        pixel = pixel + column + corner[:, 1].view(-1, 1, 1)
        place = starts[which].view(-1, 1, 1) + pixel * 3
        index = place[..., None] + torch.arange(3, device=self.device)
        return flat[index].permute(0, 3, 1, 2).float() / 255.0
