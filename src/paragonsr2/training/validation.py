"""How good a network is on held-out pictures, and whether its detail path lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paragonsr2.arrays.convert import to_float, to_pixels
from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.measure.quality import Score, mean_score, score
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.training.data import Pair
from paragonsr2.training.journal import Shown, liveliest

#: Below this detail or gate the detail path gets no gradient any more and will not come back.
DEAD_DETAIL = 1e-5
DEAD_GATE = 0.501
#: Pictures that are shown, at most.
SHOWN_PICTURES = 4


class Validation(NamedTuple):
    """What a validation found.

    Attributes:
        record: ``psnr_y``, ``ssim_y``, ``detail_rms``, ``gate_mean`` and ``gate_min``; a network
            without a gate map has 1 for both of it.
        shown: crops of the first pictures.
        dead: the part of the detail path that has died, or nothing.
    """

    record: dict[str, float]
    shown: list[Shown]
    dead: str


class _Enlarged(NamedTuple):
    sr: Pixels8
    detail_rms: float
    gate: Tensor | None


def validate(network: ParagonSR2, val: Sequence[Pair], device: torch.device) -> Validation:
    """Measure ``network``, in evaluation mode and on ``device``, on whole pictures."""
    scores: list[Score] = []
    details: list[float] = []
    gates: list[Tensor] = []
    shown: list[Shown] = []
    for index, pair in enumerate(val):
        enlarged = _enlarge(network, pair, device)
        scores.append(score(enlarged.sr, pair.hr, shave=network.scale))
        details.append(enlarged.detail_rms)
        if enlarged.gate is not None:
            gates.append(enlarged.gate)
        if index < SHOWN_PICTURES:
            shown.append(_crop(pair, enlarged.sr, network.scale))
    mean = mean_score(scores)
    record = {
        "psnr_y": round(mean.psnr_y, 4),
        "ssim_y": round(mean.ssim_y, 5),
        "detail_rms": float(np.mean(details)),
        "gate_mean": float(np.mean([float(gate.mean()) for gate in gates])) if gates else 1.0,
        "gate_min": min((float(gate.min()) for gate in gates), default=1.0),
    }
    if record["detail_rms"] < DEAD_DETAIL:
        return Validation(record, shown, "detail")
    return Validation(record, shown, "gate" if record["gate_mean"] < DEAD_GATE else "")


def look(network: ParagonSR2, val: Sequence[Pair], device: torch.device) -> list[Shown]:
    """Crops of the first pictures alone."""
    return [
        _crop(pair, _enlarge(network, pair, device).sr, network.scale)
        for pair in val[:SHOWN_PICTURES]
    ]


def _enlarge(network: ParagonSR2, pair: Pair, device: torch.device) -> _Enlarged:
    x = torch.from_numpy(to_float(pair.lr)).to(device)
    with torch.no_grad():
        paths = network.paths(x.contiguous(memory_format=torch.channels_last))
        sr = network.join(paths).float().cpu().numpy()
    pixels = to_pixels(sr, pair.hr).astype(np.uint8, copy=False)
    return _Enlarged(pixels, float(paths.detail.square().mean().sqrt()), paths.gate)


def _crop(pair: Pair, sr: Pixels8, scale: int) -> Shown:
    rows, columns = liveliest(pair.hr, scale)
    plain = pair.lr.repeat(scale, axis=0).repeat(scale, axis=1)
    crops = (picture[rows, columns] for picture in (plain, sr, pair.hr))
    return Shown(pair.name, *crops)
