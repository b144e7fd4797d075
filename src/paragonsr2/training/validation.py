"""Validation: how good the averaged network is on held-out pictures, and whether it still learns.

Each process scores its share of the pictures; the results are gathered, so that every process
knows the same record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paragonsr2.arrays.convert import to_float, to_pixels
from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import TrainingError
from paragonsr2.measure.quality import Score, mean_score, score
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.training.data import Pair
from paragonsr2.training.journal import Journal, Shown, liveliest
from paragonsr2.training.processes import Processes

#: Below this detail or gate, the detail path gets no gradient any more and cannot recover.
DEAD_DETAIL = 1e-5
DEAD_GATE = 0.501
#: Number of pictures shown in TensorBoard and in the report, of each kind.
SHOWN_PICTURES = 4


@dataclass(frozen=True)
class ValidationSet:
    """Held-out pictures.

    Attributes:
        pictures: their mean PSNR-Y chooses the best checkpoint.
        drawn: text and shapes drawn by code, scored separately.
    """

    pictures: Sequence[Pair]
    drawn: Sequence[Pair] = ()


class Validation(NamedTuple):
    """Result of a validation.

    Attributes:
        record: ``psnr_y``, ``ssim_y``, ``detail_rms``, ``gate_mean``, ``gate_min`` (both 1 for a
            network without a gate map), and ``drawn_psnr_y`` and ``drawn_ssim_y`` where there are
            drawn pictures.
        shown: crops of the first pictures and of the first drawn ones.
        dead: the part of the detail path that has died, or nothing.
    """

    record: dict[str, float]
    shown: list[Shown]
    dead: str

    def text(self) -> str:
        """The scores in words."""
        record = self.record
        drawn = f"  drawn {record['drawn_psnr_y']:.3f} dB" if "drawn_psnr_y" in record else ""
        return f"{record['psnr_y']:.3f} dB  SSIM {record['ssim_y']:.4f}{drawn}"


class _Measured(NamedTuple):
    """One picture, in a form that travels between processes."""

    place: int
    score: Score
    detail_rms: float
    gate: tuple[float, float] | None  # mean and minimum
    shown: Shown | None


def validate(
    network: ParagonSR2,
    val: ValidationSet,
    device: torch.device,
    processes: Processes | None = None,
    show: Callable[[int, int], None] | None = None,
) -> Validation:
    """Measure ``network``, in evaluation mode and on ``device``, on whole pictures.

    Args:
        network: to measure.
        val: the pictures.
        device: of the network.
        processes: that share the work; all of them must call this.
        show: receives how many pictures of this process's share are done, and their number.
    """
    processes = processes or Processes()
    everything = [*val.pictures, *val.drawn]
    photographs = len(val.pictures)
    shown = {*range(photographs)[:SHOWN_PICTURES]}
    shown |= {*range(photographs, len(everything))[:SHOWN_PICTURES]}
    mine = range(processes.rank, len(everything), processes.world)
    measured: list[_Measured] = []
    for done, index in enumerate(mine):
        if show is not None:
            show(done, len(mine))
        measured.append(_measure(network, everything[index], device, index, index in shown))
    # In the order of the pictures, so that the means do not depend on the number of processes.
    found: list[_Measured] = sorted(processes.gather(measured), key=lambda one: one.place)
    record = _record(found[:photographs], found[photographs:])
    crops = [one.shown for one in found if one.shown is not None]
    if record["detail_rms"] < DEAD_DETAIL:
        return Validation(record, crops, "detail")
    return Validation(record, crops, "gate" if record["gate_mean"] < DEAD_GATE else "")


def _record(pictures: Sequence[_Measured], drawn: Sequence[_Measured]) -> dict[str, float]:
    mean = mean_score([one.score for one in pictures])
    gates = [one.gate for one in pictures if one.gate is not None]
    record = {
        "psnr_y": round(mean.psnr_y, 4),
        "ssim_y": round(mean.ssim_y, 5),
        "detail_rms": float(np.mean([one.detail_rms for one in pictures])),
        "gate_mean": float(np.mean([gate[0] for gate in gates])) if gates else 1.0,
        "gate_min": min((gate[1] for gate in gates), default=1.0),
    }
    if drawn:
        beside = mean_score([one.score for one in drawn])
        record["drawn_psnr_y"] = round(beside.psnr_y, 4)
        record["drawn_ssim_y"] = round(beside.ssim_y, 5)
    return record


def _measure(
    network: ParagonSR2, pair: Pair, device: torch.device, index: int, shown: bool
) -> _Measured:
    x = torch.from_numpy(to_float(pair.lr)).to(device)
    with torch.no_grad():
        paths = network.paths(x.contiguous(memory_format=torch.channels_last))
        sr = network.join(paths).float().cpu().numpy()
    pixels = to_pixels(sr, pair.hr).astype(np.uint8, copy=False)
    return _Measured(
        index,
        score(pixels, pair.hr, shave=network.scale),
        float(paths.detail.square().mean().sqrt()),
        _gate(paths.gate),
        _crop(pair, pixels, network.scale) if shown else None,
    )


def _gate(gate: Tensor | None) -> tuple[float, float] | None:
    return None if gate is None else (float(gate.mean()), float(gate.min()))


def _crop(pair: Pair, sr: Pixels8, scale: int) -> Shown:
    rows, columns = liveliest(pair.hr, scale)
    plain = pair.lr.repeat(scale, axis=0).repeat(scale, axis=1)
    crops = (picture[rows, columns] for picture in (plain, sr, pair.hr))
    return Shown(pair.name, *crops)


class Validator:
    """Validates a run, records the result and stops a run that cannot learn any more.

    Args:
        val: the pictures.
        device: of the network.
        processes: that share the work.
        journal: for the records; None in all processes but the first.
        warmup: steps before which a dead detail path is no reason to stop.
        log: receives one line per validation.

    Attributes:
        last: the latest result; None before the first.
    """

    def __init__(
        self,
        val: ValidationSet,
        device: torch.device,
        processes: Processes,
        journal: Journal | None,
        warmup: int,
        log: Callable[[str], None],
    ) -> None:
        self.val, self.device, self.processes = val, device, processes
        self.journal, self.warmup, self.log = journal, warmup, log
        self.last: Validation | None = None

    def measure(
        self, network: ParagonSR2, show: Callable[[int, int], None] | None = None
    ) -> Validation:
        """:func:`validate` without any record; all processes must call this."""
        return validate(network, self.val, self.device, self.processes, show)

    def __call__(
        self, network: ParagonSR2, step: int, show: Callable[[int, int], None] | None = None
    ) -> float:
        """Validate ``network`` after ``step`` steps; all processes must call this.

        Returns:
            Mean PSNR-Y of the held-out pictures, in decibel.

        Raises:
            TrainingError: the detail path has died.
            OutputError: the record cannot be written.
        """
        found = self.last = self.measure(network, show)
        if self.journal is not None:
            self.journal.validation(step, found.record, found.shown)
        start = "" if step else "  (before the first step)"
        self.log(f"step {step}  validation {found.text()}{start}")
        if step > self.warmup and found.dead:
            raise TrainingError(
                f"the {found.dead} has died at step {step} "
                f"(detail RMS {found.record['detail_rms']:.2g}, gate mean "
                f"{found.record['gate_mean']:.3f}): start again with a lower schedule.lr"
            )
        return found.record["psnr_y"]
