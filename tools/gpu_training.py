"""Train several networks at once on one GPU, inside a given number of seconds.

A GPU that is there for minutes must not wait: neither for a disk, nor for Python, nor for one small
network. So all pictures lie on the GPU, where crops are cut; a whole step, optimiser included, is
one CUDA graph; several runs replay their graphs on streams of their own; and the schedule follows
the clock instead of the step.

    PYTHONPATH=src python tools/gpu_training.py configs/gpu/x2_and_x4.toml --out runs/gpu

The plan is a list of waves, one after the other; the runs of a wave share the GPU and its seconds.
Each run leaves ``NAME.safetensors``, its averaged weights, and ``NAME.json``, its curve. A run may
start from the weights of an earlier one. A run whose steps overflow all the time is taken out, so
that the others get its share.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from resident import Resident, load, shrink
from torch import Tensor, nn
from torch.nn import functional as F

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.files import write_atomic
from paragonsr2.measure.quality import LUMA_WEIGHTS
from paragonsr2.network.generator import ParagonSR2, build, channels_last
from paragonsr2.network.layers import CollapsibleConv, DilatedDepthwise
from paragonsr2.training.config import NetworkConfig
from paragonsr2.training.drawn import VALIDATION_SEED, draw_pair, draw_picture
from paragonsr2.training.loss_config import PixelTerm
from paragonsr2.training.loss_terms import PixelLoss
from paragonsr2.training.optimizer import UPDATE_RMS, is_matrix, orthogonalised
from paragonsr2.training.pictures import list_images
from paragonsr2.training.start import start_from
from paragonsr2.weights.store import save_checkpoint

BETAS, EPSILON, CLIP, MOMENTUM = (0.9, 0.99), 1e-8, 1.0, 0.95
#: The loss is multiplied by it, so that gradients do not vanish in float16: halved after a step
#: that overflows, doubled over so many steps that do not.
LOSS_SCALE, SCALE_DOUBLES = 2.0**14, 2000
#: A run is given up if more than half of so many steps overflow.
WATCHED = 400
#: Steps whose random numbers are drawn at once.
DRAWS = 2048
#: Steps that a run may be ahead of the GPU.
AHEAD = 4
#: Drawn pictures to validate on.
VAL_DRAWN = 8


class Table(BaseModel):
    """A table of the plan; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Pictures(Table):
    """A folder of pictures, each reduced by ``shrink`` first."""

    path: Path
    shrink: int = 1
    weight: float = 1.0


class Phase(Table):
    """A part of a run, until the share ``until`` of its time is over."""

    until: float
    batch: int
    patch: int
    loss: Literal["l1", "psnr"] = "l1"


class Run(Table):
    """One network to train.

    Attributes:
        name: of its files.
        variant: of the network.
        scale: of the network.
        expansion: of the network.
        phases: in order; the last one's ``until`` is above 1.
        seed: of weights and crops.
        lr: highest learning rate; it falls along a cosine.
        final_lr: at the end.
        warmup: steps.
        ema: decay of the averaged weights.
        optimizer: for the kernels; Adam has the rest.
        luma: share of luma in the loss.
        pretrain: weights to start from: a path, or the file of an earlier run of the plan.
        priority: -1 goes before 0 where kernels wait for a place on the GPU.
        compile: with ``torch.compile``, which takes about a minute per phase.
    """

    name: str
    variant: str
    scale: int
    expansion: int
    phases: list[Phase]
    seed: int = 0
    lr: float = 1e-3
    final_lr: float = 1e-6
    warmup: int = 500
    ema: float = 0.999
    optimizer: Literal["muon", "adam"] = "muon"
    luma: float = 0.8
    pretrain: Path | None = None
    priority: int = 0
    compile: bool = False


class Wave(Table):
    """Runs that share the GPU for some seconds."""

    seconds: float
    run: list[Run]


class Plan(Table):
    """The whole file; one half of the drawn pictures is drawn at low resolution, too."""

    train: list[Pictures]
    val: Path
    licence: str
    wave: list[Wave]
    drawn: int = 240
    drawn_weight: float = 0.25


def dense_depthwise(self: DilatedDepthwise, x: Tensor) -> Tensor:
    """A depthwise convolution as a dense one, for the matrix units of a GPU."""
    eye = torch.eye(self.in_channels, device=x.device, dtype=self.weight.dtype)
    kernel = self.weight * eye[:, :, None, None]
    return F.conv2d(x, kernel, self.bias, padding=self.padding, dilation=self.dilation)


def exact_kernel(
    self: CollapsibleConv, kernel: Callable[[CollapsibleConv], Tensor] = CollapsibleConv.kernel
) -> Tensor:
    """The product of a collapsible convolution's parts in float32: it costs next to nothing."""
    with torch.autocast(self.mix.device.type, enabled=False):
        return kernel(self)


class Flat:
    """All parameters of a network as views of one vector, with everything an optimiser keeps.

    So a step of the optimiser is a few large operations, and none of them asks the host.

    Args:
        network: its parameters become views.
        run: rates and optimiser.
    """

    def __init__(self, network: ParagonSR2, run: Run) -> None:
        self.parameters = list(network.parameters())
        self.values = torch.cat([p.detach().flatten() for p in self.parameters])
        zeros, one = torch.zeros_like, torch.ones((), device=self.values.device)
        self.grads, self.update, self.average = (
            zeros(self.values), zeros(self.values), self.values.clone(),
        )  # fmt: skip
        self.mean, self.square = zeros(self.values), zeros(self.values)
        self.momentum, self.ahead = zeros(self.values), zeros(self.values)
        self.step, self.skipped, self.rate = zeros(one), zeros(one), zeros(one)
        self.loss_scale = one * LOSS_SCALE
        self.ema = run.ema
        for parameter, value, grad in zip(
            self.parameters, self.split(self.values), self.split(self.grads), strict=True
        ):
            parameter.data, parameter.grad = value, grad
        self.by_shape: dict[tuple[int, int], list[int]] = {}
        for index, parameter in enumerate(self.parameters):
            if run.optimizer == "muon" and is_matrix(parameter):
                shape = (parameter.shape[0], parameter[0].numel())
                self.by_shape.setdefault(shape, []).append(index)
        self.ahead_views, self.update_views = (
            list(self.split(vector)) for vector in (self.ahead, self.update)
        )

    def split(self, vector: Tensor) -> Iterator[Tensor]:
        """The parts of such a vector, in the shapes of the parameters."""
        start = 0
        for parameter in self.parameters:
            yield vector[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()

    @torch.no_grad()
    def advance(self) -> None:
        """One step of Muon and Adam from the gradients, and of the average."""
        norm = self.grads.norm() / self.loss_scale
        fine = torch.isfinite(norm)
        self.skipped += ~fine
        # A step that overflowed does nothing but decay the means a little.
        share = torch.where(fine, (CLIP / (norm + 1e-6)).clamp_max(1.0) / self.loss_scale, 0.0)
        grads = torch.nan_to_num(self.grads, 0.0, 0.0, 0.0) * share
        self.loss_scale.mul_(torch.where(fine, 2.0 ** (1.0 / SCALE_DOUBLES), 0.5))
        self.step += 1.0
        one, two = BETAS
        self.mean.lerp_(grads, 1.0 - one)
        self.square.lerp_(grads.square(), 1.0 - two)
        mean, square = self.mean / (1.0 - one**self.step), self.square / (1.0 - two**self.step)
        self.update.copy_(mean / (square.sqrt() + EPSILON))
        if self.by_shape:
            self.momentum.lerp_(grads, 1.0 - MOMENTUM)
            self.ahead.copy_(grads.lerp(self.momentum, MOMENTUM))
            for shape, members in self.by_shape.items():
                stack = torch.stack([self.ahead_views[i].reshape(shape) for i in members])
                made = orthogonalised(stack) * (UPDATE_RMS * max(shape) ** 0.5)
                for index, matrix in zip(members, made, strict=True):
                    self.update_views[index].copy_(matrix.view(self.update_views[index].shape))
        self.values.sub_(self.update * self.rate)
        decay = torch.clamp(self.step / (self.step + 9.0), max=self.ema)
        self.average.lerp_(self.values, 1.0 - decay)
        self.grads.zero_()


@dataclass(frozen=True)
class Held:
    """A validation picture on the device.

    Attributes:
        lr: ``(1, 3, h, w)`` in 0..1.
        luma: of the original, ``(H, W)``, in levels.
    """

    lr: Tensor
    luma: Tensor


def hold(pictures: Sequence[Pixels8], scale: int, device: torch.device) -> list[Held]:
    """Put validation pictures of one scale on the device."""
    held: list[Held] = []
    for picture in pictures:
        hr = torch.from_numpy(picture).to(device)
        lr = shrink(hr, scale).permute(2, 0, 1)[None].float() / 255.0
        hr = hr.permute(2, 0, 1)[None].float() / 255.0
        held.append(Held(lr.contiguous(memory_format=torch.channels_last), _luma(hr)))
    return held


def _luma(picture: Tensor) -> Tensor:
    """Luma ``(H, W)``, in levels, of ``(1, 3, H, W)`` in 0..1, rounded to 8 bit first."""
    pixels = (picture[0].double() * 255.0 + 0.5).floor().clamp(0, 255)
    weights = torch.tensor(LUMA_WEIGHTS, dtype=torch.float64, device=picture.device)
    return torch.einsum("chw,c->hw", pixels, weights)


class Training:
    """A run on a stream of its own.

    Args:
        run: its table.
        data: training pictures of the run's scale.
        val: validation pictures of that scale: photographs and drawn ones.
        device: CUDA; or the CPU, to try the code.
        out: folder of the results.
        facts: what the weights say of their training.
    """

    def __init__(
        self,
        run: Run,
        data: Resident,
        val: tuple[Sequence[Held], Sequence[Held]],
        device: torch.device,
        out: Path,
        facts: dict[str, Any],
    ) -> None:
        torch.manual_seed(run.seed)
        self.run, self.data, self.val, self.device, self.out = run, data, val, device, out
        self.facts, self.cuda = facts, device.type == "cuda"
        network = build(run.variant, run.scale, expansion=run.expansion)
        if run.pretrain is not None:
            earlier = out / run.pretrain
            start_from(
                network,
                earlier if earlier.exists() else run.pretrain,
                NetworkConfig(variant=run.variant, scale=run.scale, expansion=run.expansion),
                print,
            )
        self.network = channels_last(network.to(device))
        self.flat = Flat(self.network, run)
        self.judge = copy.deepcopy(self.network).eval()
        self.model: nn.Module = self.network
        if run.compile:
            self.model = torch.compile(self.network, dynamic=False)
        self.losses = {
            phase.loss: PixelLoss(PixelTerm(kind=phase.loss, luma=run.luma)).to(device)
            for phase in run.phases
        }
        self.generator = torch.Generator(device).manual_seed(run.seed)
        self.stream = torch.cuda.Stream(priority=run.priority) if self.cuda else None
        self.steps, self.taken, self.pixels = 0, [0] * len(run.phases), 0
        self.reported, self.skipped, self.lost = 0, 0.0, False
        self.curve: list[dict[str, float]] = []
        self.loss_sum = torch.zeros((), device=device)
        self.counter = torch.zeros(1, dtype=torch.long, device=device)
        largest = max(phase.batch for phase in run.phases)
        self.draws = torch.empty(DRAWS, largest, 4, device=device)
        self.replays: list[Callable[[], None]] = []
        self.pending: list[Any] = []

    def _step(self, phase: Phase) -> None:
        draws = self.draws.index_select(0, self.counter % DRAWS)[0, : phase.batch]
        lr, hr = self.data.crops(draws, phase.patch)
        lr = lr.contiguous(memory_format=torch.channels_last)
        with torch.autocast(
            self.device.type, torch.float16, enabled=self.cuda, cache_enabled=False
        ):
            sr = self.model(lr)
        loss = self.losses[phase.loss](sr, hr)
        (loss * self.flat.loss_scale).backward()
        self.flat.advance()
        self.loss_sum += loss.detach()
        self.counter += 1

    def capture(self) -> None:
        """Record the step of each phase as a graph; the weights are as before afterwards."""
        if not self.cuda:
            self.replays = [lambda phase=phase: self._step(phase) for phase in self.run.phases]
            return
        kept = {
            name: value.clone()
            for name, value in vars(self.flat).items()
            if isinstance(value, Tensor)
        }
        self.draws.uniform_(generator=self.generator)
        # Only here: validation has many sizes, and each would be tried out.
        torch.backends.cudnn.benchmark = True
        for phase in self.run.phases:
            with torch.cuda.stream(self.stream):
                try:
                    self._step(phase)
                except (RuntimeError, AssertionError) as error:
                    if self.model is self.network:
                        raise
                    # Minutes of a GPU must not be lost to a compiler.
                    print(f"{self.run.name}: not compiled: {error}", flush=True)
                    self.model = self.network
                for _ in range(3):
                    self._step(phase)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self.stream):
                self._step(phase)
            self.replays.append(graph.replay)
        torch.backends.cudnn.benchmark = False
        for name, value in kept.items():
            getattr(self.flat, name).copy_(value)
        self.loss_sum.zero_()
        self.counter.zero_()
        torch.cuda.synchronize()

    def offer(self, progress: float) -> bool:
        """Queue a step unless enough of them wait; ``progress`` is the share of time gone."""
        if self.lost:
            return False
        if self.cuda:
            self.pending = [event for event in self.pending if not event.query()]
            if len(self.pending) >= AHEAD:
                return False
            with torch.cuda.stream(self.stream):
                self._next(progress)
                self.pending.append(torch.cuda.Event())
                self.pending[-1].record()
        else:
            self._next(progress)
        return True

    def _next(self, progress: float) -> None:
        index = next(i for i, phase in enumerate(self.run.phases) if progress < phase.until)
        if self.steps % DRAWS == 0:
            self.draws.uniform_(generator=self.generator)
        if self.steps % WATCHED == WATCHED - 1:
            self._watch()
        self.flat.rate.fill_(self._rate(progress))
        self.replays[index]()
        self.steps += 1
        self.taken[index] += 1
        self.pixels += self.run.phases[index].batch * self.run.phases[index].patch ** 2

    def _watch(self) -> None:
        before, self.skipped = self.skipped, float(self.flat.skipped)
        if self.skipped - before > WATCHED / 2:
            print(f"{self.run.name}: given up at step {self.steps}: it overflows", flush=True)
            self.lost = True

    def _rate(self, progress: float) -> float:
        run = self.run
        if self.steps < run.warmup:
            return run.lr * (self.steps + 1) / run.warmup
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        return run.final_lr + (run.lr - run.final_lr) * cosine

    @torch.no_grad()
    def validate(self, seconds: float) -> None:
        """Measure the averaged weights, and save them with the curve."""
        if self.cuda:
            torch.cuda.synchronize()
        for parameter, value in zip(
            self.judge.parameters(), self.flat.split(self.flat.average), strict=True
        ):
            parameter.copy_(value)
        photographs, drawn = self.val
        record = {
            "step": self.steps,
            "seconds": round(seconds, 1),
            "psnr_y": round(self._psnr(photographs), 4),
            "drawn_psnr_y": round(self._psnr(drawn), 4),
            "loss": float(self.loss_sum) / max(1, self.steps - self.reported),
            "skipped": float(self.flat.skipped),
        }
        gates = [self.judge.paths(held.lr).gate for held in photographs]
        if found := [float(gate.mean()) for gate in gates if gate is not None]:
            record["gate_mean"] = round(sum(found) / len(found), 4)
        self.loss_sum.zero_()
        self.reported = self.steps
        self.curve.append(record)
        print(f"{self.run.name}: {record}", flush=True)
        self._save()

    def _psnr(self, pictures: Sequence[Held]) -> float:
        shave, scores = self.run.scale, list[float]()
        for held in pictures:
            difference = _luma(self.judge(held.lr).float()) - held.luma
            error = difference[shave:-shave, shave:-shave].square().mean()
            scores.append(float(10.0 * torch.log10(255.0**2 / error)))
        return sum(scores) / len(scores)

    def _save(self) -> None:
        run = self.run
        phases = [
            {**phase.model_dump(), "steps": steps}
            for phase, steps in zip(run.phases, self.taken, strict=True)
        ]
        facts = {
            **self.facts,
            "steps": self.steps,
            "lr": run.lr,
            "seed": run.seed,
            "phases": phases,
            "pretrain": run.pretrain.name if run.pretrain else None,
        }
        path = self.out / f"{run.name}.safetensors"
        save_checkpoint(path, copy.deepcopy(self.judge).cpu(), run.variant, facts)
        table = {"run": run.model_dump(mode="json"), "pixels": self.pixels, "curve": self.curve}
        write_atomic(path.with_suffix(".json"), (json.dumps(table, indent=1) + "\n").encode())


def train_wave(trainings: Sequence[Training], seconds: float, every: float) -> None:
    """Train side by side until the time is over; validate every so many seconds."""
    for training in trainings:
        training.capture()
        training.validate(0.0)
    begin, due = time.monotonic(), every
    while (gone := time.monotonic() - begin) < seconds:
        offered = [training.offer(gone / seconds) for training in trainings]
        if not any(offered):
            if all(training.lost for training in trainings):
                break
            time.sleep(2e-5)
        if due < gone < seconds - every / 2:
            due += every
            for training in trainings:
                training.validate(gone)
    for training in trainings:
        training.validate(seconds)
        rate = training.pixels / seconds / 1e6
        print(f"{training.run.name}: {training.steps} steps, {rate:.2f} megapixels a second")


def read_pictures(
    plan: Plan, device: torch.device
) -> tuple[dict[int, Resident], list[Pixels8], list[Pixels8]]:
    """Training pictures of each scale; photographs and drawn pictures to validate on."""
    listed = [(folder, path) for folder in plan.train for path in list_images(folder.path)]
    least = max(p.patch * run.scale for w in plan.wave for run in w.run for p in run.phases)
    half = plan.drawn // 2
    with ProcessPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        held = pool.map(draw_picture, range(VAL_DRAWN), repeat(VALIDATION_SEED))
        drawn = pool.map(draw_picture, range(half), repeat(0), chunksize=4)
        twice = {
            scale: pool.map(draw_pair, range(half), repeat(0), repeat(scale), chunksize=4)
            for scale in sorted({run.scale for wave in plan.wave for run in wave.run})
        }
        pictures = list(pool.map(load, [(path, f.shrink) for f, path in listed], chunksize=4))
        val = list(pool.map(load, [(path, 1) for path in list_images(plan.val)]))
        usable = [i for i, picture in enumerate(pictures) if min(picture.shape[:2]) >= least]
        shared = [*(pictures[i] for i in usable), *drawn]
        weights = [*(listed[i][0].weight for i in usable), *[plan.drawn_weight] * 2 * half]
        data: dict[int, Resident] = {}
        for scale, made in twice.items():
            pairs = list(made)
            small = {len(shared) + index: lr for index, (_, lr) in enumerate(pairs)}
            large = [*shared, *(hr for hr, _ in pairs)]
            data[scale] = Resident(large, weights, scale, device, small)
        drawn_val = list(held)
    megapixels = next(iter(data.values())).megapixels
    print(
        f"{len(usable)} of {len(listed)} pictures and {2 * half} drawn, "
        f"{megapixels:.0f} megapixels",
        flush=True,
    )
    return data, val, drawn_val


def main() -> None:
    """Run the plan."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--device", default="cuda", help="cpu tries the code")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between validations")
    options = parser.parse_args()
    plan = Plan(**tomllib.loads(options.plan.read_text(encoding="utf-8")))
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = False  # validation computes in float32
    CollapsibleConv.kernel = exact_kernel
    if device.type == "cuda":
        DilatedDepthwise.forward = dense_depthwise
    data, val, drawn = read_pictures(plan, device)
    facts = {"data": [folder.path.name for folder in plan.train], "data_licence": plan.licence}
    for wave in plan.wave:
        trainings = [
            Training(
                run,
                data[run.scale],
                (hold(val, run.scale, device), hold(drawn, run.scale, device)),
                device,
                options.out,
                facts,
            )
            for run in wave.run
        ]
        train_wave(trainings, wave.seconds, options.every)


if __name__ == "__main__":
    main()
