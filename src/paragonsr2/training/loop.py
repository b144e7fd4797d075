"""The fidelity training loop; reads from top to bottom."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import pickle
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from paragonsr2.errors import TrainingError
from paragonsr2.files import write_atomic
from paragonsr2.measure.quality import Score, mean_score, score
from paragonsr2.network.generator import ALPHA_KEY, ParagonSR2, build, channels_last
from paragonsr2.pixels.arrays import Pixels8
from paragonsr2.pixels.convert import to_float, to_pixels
from paragonsr2.training.config import ScheduleConfig, TrainConfig
from paragonsr2.training.data import CropSampler, Pair
from paragonsr2.training.dataset import Processes, prepare
from paragonsr2.training.losses import GeneratorLosses
from paragonsr2.training.prefetch import prefetch
from paragonsr2.weights.store import load_checkpoint, save_checkpoint

STATE_FILE = "last.state"
VALIDATION_FILE = "validation.jsonl"
#: Below this detail or gate the detail path gets no gradient any more and will not come back.
DEAD_DETAIL = 1e-5
DEAD_GATE = 0.501


def learning_rate(schedule: ScheduleConfig, step: int) -> float:
    """Linear warm-up, then cosine from ``lr`` to ``final_lr`` at the last step."""
    if step < schedule.warmup:
        return schedule.lr * (step + 1) / schedule.warmup
    progress = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return schedule.final_lr + (schedule.lr - schedule.final_lr) * cosine


class Ema:
    """Exponential moving average of a network's parameters."""

    def __init__(self, network: ParagonSR2, decay: float) -> None:
        self.decay = decay
        self.values = [p.detach().clone() for p in network.parameters()]

    @torch.no_grad()
    def update(self, network: ParagonSR2, step: int) -> None:
        """Move towards ``network``; early steps move faster, so the start is forgotten."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for average, live in zip(self.values, network.parameters(), strict=True):
            average.lerp_(live, 1.0 - decay)

    @contextmanager
    def applied(self, network: ParagonSR2) -> Generator[ParagonSR2]:
        """``network`` with the averaged parameters, in evaluation mode, for a while."""
        with torch.no_grad():
            live = [p.detach().clone() for p in network.parameters()]
            for parameter, value in zip(network.parameters(), self.values, strict=True):
                parameter.copy_(value)
            network.eval()
            try:
                yield network
            finally:
                network.train()
                for parameter, value in zip(network.parameters(), live, strict=True):
                    parameter.copy_(value)


class Trainer:
    """One fidelity run: builds everything from its configuration, then :meth:`run`.

    Args:
        config: what to do.
        resume: go on from the state in ``run.output``.
        log: receives one line of text now and then.

    Raises:
        TrainingError: unreadable data, a state that does not fit, or one that is in the way.
    """

    def __init__(
        self, config: TrainConfig, *, resume: bool = False, log: Callable[[str], None] = print
    ) -> None:
        self.config, self.log = config, log
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        precision = config.run.precision
        cpu = config.run.device == "cpu"
        if config.run.device == "cuda" and not torch.cuda.is_available():
            raise TrainingError("run.device is cuda, but there is no CUDA device; take auto")
        if precision == "auto":
            gpu = torch.cuda.is_available() and not cpu
            precision = "bf16" if gpu and torch.cuda.is_bf16_supported() else "fp32"
        mixed = "bf16" if precision == "bf16" else "no"
        self.accelerator = Accelerator(cpu=cpu, mixed_precision=mixed)
        torch.manual_seed(config.run.seed)

        self.output = config.run.output
        # A run may be made longer or shorter when it is resumed, and go on anywhere.
        free = {"run": {"threads", "output"}, "schedule": {"steps"}}
        # Defaults are left out, so that an option that is added later does not end old runs.
        told = config.model_dump_json(exclude=free, exclude_defaults=True)
        self.digest = hashlib.sha256(told.encode()).hexdigest()
        state_path = self.output / STATE_FILE
        if state_path.exists() and not resume:
            raise TrainingError(
                f"{self.output} holds a run already; add --resume, or name another run.output"
            )
        if resume and not state_path.exists():
            raise TrainingError(f"there is nothing to resume in {self.output}")

        net = config.network
        options = {"upsampler_alpha": net.upsampler_alpha, "expansion": net.expansion}
        network = build(net.variant, net.scale, **options)
        if net.pretrain is not None:
            self._start_from(network, net.pretrain)
        network.set_checkpointing(net.checkpointing)
        self.network = channels_last(network.to(self.accelerator.device))
        self.ema = Ema(self.network, config.schedule.ema)
        with self.accelerator.main_process_first():  # one process fetches, the others find it
            self.loss = GeneratorLosses(config.loss, self.accelerator.device, log)
        optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=config.schedule.lr,
            betas=config.schedule.betas,
            fused=True,
        )
        self.model, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.step, self.best = 0, -math.inf
        self.loss_sum = torch.zeros((), device=self.accelerator.device)
        self.stopping = False
        if resume:
            self._load_state(state_path)

    def _start_from(self, network: ParagonSR2, path: Path) -> None:
        """Take over the weights of ``path``; at another scale, all but the upsampler."""
        checkpoint = load_checkpoint(path, arch=self.config.network.variant)
        if checkpoint.description.collapsed:
            raise TrainingError(f"{path} is in deployed form; start from trained form")
        old, state = checkpoint.network, network.state_dict()
        kept = [key for key in state if key != ALPHA_KEY]
        if old.scale != network.scale:
            kept = [key for key in kept if not key.startswith("upsampler.")]
            self.log(f"{path.name} is x{old.scale}: its upsampler is left out and learned anew")
        elif old.upsampler_alpha != network.upsampler_alpha:
            self.log(
                f"{path.name} has upsampler_alpha {old.upsampler_alpha:g}, this run "
                f"{network.upsampler_alpha:g}: the detail has to settle on the new base first"
            )
        theirs = old.state_dict()
        try:
            network.load_state_dict({**state, **{key: theirs[key] for key in kept}})
        except (KeyError, RuntimeError) as error:
            raise TrainingError(
                f"{path} does not fit network.expansion {self.config.network.expansion} and the "
                f"other options of this run; look: paragonsr2 inspect {path}"
            ) from error

    def prepare_data(self) -> tuple[CropSampler, list[Pair]]:
        """Check and load the data; see :func:`paragonsr2.training.dataset.prepare`."""
        accelerator = self.accelerator
        processes = Processes(
            accelerator.process_index, accelerator.num_processes, accelerator.wait_for_everyone
        )
        return prepare(self.config, self.log, processes)

    def run(self) -> None:
        """Train to the last step, or until told to stop; the state is on disk at the end.

        Raises:
            TrainingError: the loss is not finite, or the detail path has died.
        """
        config = self.config
        sampler, val = self.prepare_data()
        main = self.accelerator.is_main_process
        self.output.mkdir(parents=True, exist_ok=True)
        writer = SummaryWriter(str(self.output / "tensorboard"), purge_step=self.step)
        started = saved = reported = time.monotonic()
        first = reported_step = self.step
        batches = self.batches(sampler)
        with _graceful(self._stop), contextlib.closing(batches):
            while self.step < config.schedule.steps and not self.stopping:
                self.loss_sum += self.train_step(*next(batches))
                self.step += 1
                if self.step % config.run.log_every == 0 and main:
                    mean = float(self.loss_sum) / config.run.log_every
                    self.loss_sum.zero_()
                    self._check_finite(mean)
                    now = time.monotonic()
                    rate = (self.step - reported_step) / (now - reported)
                    reported, reported_step = now, self.step
                    writer.add_scalar("train/loss", mean, self.step)
                    writer.add_scalar("train/steps_per_second", rate, self.step)
                    eta = (config.schedule.steps - self.step) * (now - started)
                    eta /= self.step - first
                    self.log(
                        f"step {self.step}/{config.schedule.steps}  loss {mean:.5f}  "
                        f"{rate:.1f} steps/s  ETA {eta / 60:.0f} min"
                    )
                last = self.step == config.schedule.steps
                if main and (last or self.step % config.run.validate_every == 0):
                    self._validate(val, writer)
                    reported, reported_step = time.monotonic(), self.step
                if main and time.monotonic() - saved > 60 * config.run.checkpoint_minutes:
                    self.save_state()
                    saved = time.monotonic()
        writer.close()
        if main:
            self.save_state()
            self._save_weights("last.safetensors")

    def batches(self, sampler: CropSampler) -> Generator[tuple[Tensor, Tensor]]:
        """Batches from the current step on, this process's share, the next ones in preparation.

        Yields:
            LR ``(B, 3, patch, patch)`` and HR ``(B, 3, patch * scale, patch * scale)`` in 0..1.

        Raises:
            TrainingError: the batch does not divide by the number of processes.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        if self.config.data.batch % world:
            raise TrainingError(f"data.batch {self.config.data.batch} does not divide by {world}")
        share = self.config.data.batch // world
        rows = range(rank * share, (rank + 1) * share)
        workers = self.config.data.workers
        with contextlib.closing(
            prefetch(lambda step: sampler.batch(step, rows), self.step, workers)
        ) as prepared:
            for lr, hr in prepared:
                yield self._to_device(lr), self._to_device(hr)

    def train_step(self, lr: Tensor, hr: Tensor) -> Tensor:
        """One update of the weights and their average; the step counter is the caller's.

        Args:
            lr: ``(B, 3, h, w)`` in 0..1.
            hr: ``(B, 3, h * scale, w * scale)`` in 0..1.

        Returns:
            The loss, a scalar on the device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.schedule, self.step)
        sr_ema = None
        if self.loss.weight_at("artefact", self.step) > 0.0:
            # Before the live pass: it lends the network its averaged parameters for a while.
            with self.ema.applied(self.network) as averaged, self.accelerator.autocast():
                sr_ema = averaged(lr)
        with self.accelerator.autocast():
            sr = self.model(lr)
        loss = self.loss(self.step, sr, hr, sr_ema=sr_ema).total
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.schedule.clip)
        self.optimizer.step()
        self.ema.update(self.network, self.step)
        return loss.detach()

    def _to_device(self, pixels: Pixels8) -> Tensor:
        """Turn ``(B, H, W, 3)`` uint8 into a channels-last float batch in 0..1."""
        batch = torch.from_numpy(pixels).to(self.accelerator.device, non_blocking=True)
        return batch.permute(0, 3, 1, 2).float() / 255.0

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} near step {self.step}; the last checkpoint is intact: "
                "lower schedule.lr and go on with --resume"
            )

    def _validate(self, val: list[Pair], writer: SummaryWriter) -> None:
        scores: list[Score] = []
        detail_rms: list[float] = []
        gate_mean, gate_min = [1.0], 1.0
        with self.ema.applied(self.network) as network, torch.no_grad():
            for pair in val:
                x = torch.from_numpy(to_float(pair.lr)).to(self.accelerator.device)
                paths = network.paths(x.contiguous(memory_format=torch.channels_last))
                sr = network.join(paths)
                detail_rms.append(float(paths.detail.square().mean().sqrt()))
                if paths.gate is not None:
                    gate_mean.append(float(paths.gate.mean()))
                    gate_min = min(gate_min, float(paths.gate.min()))
                pixels = to_pixels(sr.float().cpu().numpy(), pair.hr).astype(np.uint8, copy=False)
                scores.append(score(pixels, pair.hr, shave=network.scale))
        mean = mean_score(scores)
        record = {
            "step": self.step,
            "psnr_y": round(mean.psnr_y, 4),
            "ssim_y": round(mean.ssim_y, 5),
            "detail_rms": float(np.mean(detail_rms)),
            "gate_mean": float(np.mean(gate_mean)),
            "gate_min": gate_min,
        }
        for key, value in record.items():
            if key != "step":
                writer.add_scalar(f"val/{key}", value, self.step)
        with (self.output / VALIDATION_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.log(f"step {self.step}  validation {mean.psnr_y:.3f} dB  SSIM {mean.ssim_y:.4f}")
        if self.step > self.config.schedule.warmup:
            dead = record["detail_rms"] < DEAD_DETAIL
            if dead or (self.network.gate is not None and record["gate_mean"] < DEAD_GATE):
                raise TrainingError(
                    f"the {'detail' if dead else 'gate'} has died at step {self.step} "
                    f"(detail RMS {record['detail_rms']:.2g}, gate mean "
                    f"{record['gate_mean']:.3f}): start again with a lower schedule.lr"
                )
        if mean.psnr_y > self.best:
            self.best = mean.psnr_y
            self._save_weights("best.safetensors")

    def _save_weights(self, name: str) -> None:
        config = self.config
        training = {
            "steps": self.step,
            "batch": config.data.batch,
            "patch": config.data.patch,
            "loss": config.loss.model_dump(exclude_none=True),
            "lr": config.schedule.lr,
            "seed": config.run.seed,
            "data": [folder.name for folder in config.data.train],
            "data_licence": config.data.licence,
            "pretrain": config.network.pretrain.name if config.network.pretrain else None,
            "config_sha256": self.digest,
        }
        with self.ema.applied(self.network) as network:
            save_checkpoint(self.output / name, network, config.network.variant, training)

    def save_state(self) -> None:
        """Write all that a bit-identical continuation needs, atomically."""
        state = {
            "digest": self.digest,
            "step": self.step,
            "best": self.best,
            "loss_sum": self.loss_sum,
            "network": self.network.state_dict(),
            "ema": self.ema.values,
            "optimizer": self.optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.output / STATE_FILE, buffer.getvalue())

    def _load_state(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
            if state["digest"] != self.digest:
                raise TrainingError(
                    f"{path} belongs to another configuration; resume with the one it had"
                )
            self.network.load_state_dict(state["network"])
            self.ema.values = state["ema"]
            self.loss_sum = state["loss_sum"]
            self.optimizer.load_state_dict(state["optimizer"])
        except (pickle.UnpicklingError, KeyError, RuntimeError, EOFError, ValueError) as error:
            raise TrainingError(f"{path} is no readable training state: {error}") from error
        self.step, self.best = int(state["step"]), float(state["best"])
        self._forget_after(self.step)

    def _forget_after(self, step: int) -> None:
        """Drop validation records of steps that will be run again."""
        path = self.output / VALIDATION_FILE
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write_atomic(path, "".join(line + "\n" for line in kept).encode())

    def _stop(self) -> None:
        self.log(f"stopping after step {self.step + 1}; go on with --resume")
        self.stopping = True


@contextmanager
def _graceful(stop: Callable[[], None]) -> Generator[None]:
    """Turn Ctrl-C and SIGTERM into ``stop()``; a second one ends at once."""

    def handle(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
