"""The training loop, for fidelity and perceptual models; reads from top to bottom."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import TrainingError
from paragonsr2.files import write_atomic
from paragonsr2.network.generator import build, channels_last
from paragonsr2.training.adversarial import build_opponent, reduced
from paragonsr2.training.average import Ema
from paragonsr2.training.config import ScheduleConfig, TrainConfig
from paragonsr2.training.data import CropSampler, Pair
from paragonsr2.training.dataset import Processes, prepare
from paragonsr2.training.journal import Journal
from paragonsr2.training.losses import GeneratorLosses
from paragonsr2.training.machine import (
    IMITATED,
    graceful,
    imitates_bfloat16,
    mixed_precision,
    out_of_memory,
)
from paragonsr2.training.optimizer import build_optimizers
from paragonsr2.training.prefetch import prefetch
from paragonsr2.training.report import write_report
from paragonsr2.training.start import start_from
from paragonsr2.training.state import BEST_FILE, STATE_FILE, read_state, write_state
from paragonsr2.training.validation import look, validate
from paragonsr2.variants import VARIANTS
from paragonsr2.weights.store import save_checkpoint

BAD_BATCH_FILE = "bad_batch.safetensors"


def learning_rate(schedule: ScheduleConfig, step: int) -> float:
    """Linear warm-up, then cosine from ``lr`` to ``final_lr`` at the last step."""
    if step < schedule.warmup:
        return schedule.lr * (step + 1) / schedule.warmup
    progress = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return schedule.final_lr + (schedule.lr - schedule.final_lr) * cosine


class Trainer:
    """One run: builds everything from its configuration, then :meth:`run`.

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
        self.config, self._log = config, log
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        precision = mixed_precision(config.run)
        # A run before this one, in the same process, may have had another precision.
        AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]
        self.accelerator = Accelerator(cpu=config.run.device == "cpu", mixed_precision=precision)
        if precision == "bf16" and self.accelerator.device.type == "cpu" and imitates_bfloat16():
            self.log(IMITATED)
        torch.manual_seed(config.run.seed)

        self.output = config.run.output
        # A run may be made longer or shorter when it is resumed, and go on on any machine.
        free = {
            "run": {"threads", "output", "precision", "validate_every", "checkpoint_minutes"},
            "schedule": {"steps"},
            "data": {"workers", "storage", "memory_gb", "cache", "cache_lr"},
        }
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
        if net.pretrain is not None and not resume:
            start_from(network, net.pretrain, net, self.log)
        self._check_alpha()
        network.set_checkpointing(net.checkpointing)
        self.network = channels_last(network.to(self.accelerator.device))
        self.ema = Ema(self.network, config.schedule.ema)
        with self.accelerator.main_process_first():  # one process fetches, the others find it
            self.loss = GeneratorLosses(config.loss, self.accelerator.device, log)
        optimizers = build_optimizers(self.network, config.schedule)
        if config.run.compile:
            self.network.compile()
        self.model, *self.optimizers = self.accelerator.prepare(self.network, *optimizers)
        self.opponent = build_opponent(config, self.accelerator)
        self.step, self.best = 0, -math.inf
        self.sums: dict[str, Tensor] = {}
        self.stopping = False
        if resume:
            self._load_state(state_path)

    def log(self, line: str) -> None:
        """Say ``line``, once for all processes."""
        if self.accelerator.is_main_process:
            self._log(line)

    def _check_alpha(self) -> None:
        net, adversarial = self.config.network, self.config.loss.adversarial is not None
        low, high = VARIANTS[net.variant].perceptual_alpha if adversarial else (0.0, 0.0)
        if not low <= net.upsampler_alpha <= high:
            wanted = f"{low:g} to {high:g}" if high else "0"
            self.log(
                f"warning: upsampler_alpha {net.upsampler_alpha:g} is unusual for "
                f"{'perceptual' if adversarial else 'fidelity'} training of {net.variant}; "
                f"{wanted} is"
            )

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
            TrainingError: a loss is not finite, memory does not suffice, or the detail path has
                died. The last state is intact.
        """
        config = self.config
        sampler, val = self.prepare_data()
        self.output.mkdir(parents=True, exist_ok=True)
        journal = Journal(self.output, self.step) if self.accelerator.is_main_process else None
        started = saved = time.monotonic()
        first = self.step
        pace = _Pace(self.step)
        before: tuple[dict[str, Tensor], Tensor, Tensor] | None = None
        batches = self.batches(sampler)
        with graceful(self._stop), contextlib.closing(batches):
            while self.step < config.schedule.steps and not self._all_stop():
                lr, hr = next(batches)
                terms = self._try_step(lr, hr)
                # One step late, so that a GPU never waits for the check.
                self._check_finite(before)
                before = terms, lr, hr
                for name, value in terms.items():
                    self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
                self.step += 1
                last = self.step == config.schedule.steps
                if self.step % config.run.log_every == 0:
                    means = self._means()
                    if journal is not None:
                        rate = pace.rate(self.step)
                        journal.training(self.step, {**means, "steps_per_second": rate})
                        elapsed = time.monotonic() - started
                        eta = (config.schedule.steps - self.step) * elapsed / (self.step - first)
                        self.log(_progress(self.step, config.schedule.steps, means, rate, eta))
                validate = last or self.step % config.run.validate_every == 0
                save = time.monotonic() - saved > 60 * config.run.checkpoint_minutes
                if journal is not None and (validate or save):
                    self._check_finite(before)
                    self._check_weights()
                    if validate:
                        self._validate(val, journal)
                        pace = _Pace(self.step)
                    if save:
                        self.save_state()
                        saved = time.monotonic()
        self._check_finite(before)
        if journal is not None:
            self._check_weights()
            self.save_state()
            self._save_weights("last.safetensors")
            if self.step == config.schedule.steps:
                with self.ema.applied(self.network) as averaged:
                    shown = look(averaged, val, self.accelerator.device)
                write_report(journal, config, self.network, shown)

    def close(self) -> None:
        """Leave the other processes, together; without this, some abort while they end."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def batches(self, sampler: CropSampler) -> Generator[tuple[Tensor, Tensor]]:
        """Batches from the current step on, this process's share, the next ones in preparation.

        Yields:
            LR ``(B, 3, patch, patch)`` and HR ``(B, 3, patch * scale, patch * scale)`` in 0..1.

        Raises:
            TrainingError: the batch does not divide by the number of processes and parts.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        data, parts = self.config.data, self.config.schedule.accumulate
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

        with contextlib.closing(prefetch(crops, self.step, data.workers)) as prepared:
            for lr, hr in prepared:
                yield self._to_device(lr), self._to_device(hr)

    def train_step(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """One update of all weights and their average; the step counter is the caller's.

        Args:
            lr: ``(B, 3, h, w)`` in 0..1.
            hr: ``(B, 3, h * scale, w * scale)`` in 0..1.

        Returns:
            The loss and, where there are several, its terms: scalars on the device.
        """
        schedule = self.config.schedule
        rate = learning_rate(schedule, self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        parts = list(zip(lr.chunk(schedule.accumulate), hr.chunk(schedule.accumulate), strict=True))
        terms, generated = self._train_generator(parts)
        if self.opponent is not None and self.step >= self._opponent_starts:
            self.opponent.set_rate(self.config.discriminator.lr * rate / schedule.lr)
            pairs = [(hr_part, sr) for (_, hr_part), sr in zip(parts, generated, strict=True)]
            terms["discriminator"] = self.opponent.learn(pairs, self.step, schedule.clip)
        self.ema.update(self.network, self.step)
        return terms

    @property
    def _opponent_starts(self) -> int:
        game = self.config.loss.adversarial
        return 0 if game is None else max(0, game.start - self.config.discriminator.lead)

    def _train_generator(
        self, parts: list[tuple[Tensor, Tensor]]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Update the generator from parts of a batch; give back mean terms and its pictures."""
        sums: dict[str, Tensor] = {}
        generated: list[Tensor] = []
        for index, (lr, hr) in enumerate(parts):
            with self._gradients_shared(index == len(parts) - 1):
                sr, terms = self._generate(lr, hr)
                self.accelerator.backward(terms["loss"] / len(parts))
            generated.append(sr.detach())
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / len(parts)
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.schedule.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        # Now, not before the next pass: the opponent needs the memory, and accelerate would have
        # the loss scaler look at them again in the opponent's step.
        self.network.zero_grad(set_to_none=True)
        return sums, generated

    def _gradients_shared(self, shared: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients only with the last part of a batch."""
        return contextlib.nullcontext() if shared else self.accelerator.no_sync(self.model)

    def _generate(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The generator's pictures, and its terms with their graphs."""
        sr_ema = None
        if self.loss.weight_at("artefact", self.step) > 0.0:
            # Before the live pass: it lends the network its averaged parameters for a while.
            with self.ema.applied(self.network) as averaged, self.accelerator.autocast():
                sr_ema = averaged(lr)
        with self.accelerator.autocast():
            sr = self.model(lr)
        report = self.loss(self.step, sr, hr, sr_ema=sr_ema)
        total, terms = report.total, dict(report.terms)
        game = self.loss.weight_at("adversarial", self.step)
        features = self.loss.weight_at("features", self.step)
        if self.opponent is not None and (game > 0.0 or features > 0.0):
            with self.accelerator.autocast():
                won, matching = self.opponent.judge(hr, sr, features=features > 0.0)
            total, terms["adversarial"] = total + game * won, won
            if matching is not None:
                total, terms["features"] = total + features * matching, matching
        return sr, {"loss": total, **(terms if len(terms) > 1 else {})}

    def _try_step(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """:meth:`train_step`, with advice where memory does not suffice."""
        try:
            return self.train_step(lr, hr)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            failed = error
        failed.__traceback__ = None  # it holds the tensors of the failed step
        fits = self._largest_batch(lr, hr)
        accumulate = len(lr) // fits * self.config.schedule.accumulate if fits else 0
        raise TrainingError(
            f"out of memory with {len(lr)} crops of {lr.shape[-1]} pixels per process; "
            + (
                f"{fits} fit: set data.batch={fits * self.accelerator.num_processes}, or "
                f"schedule.accumulate={accumulate} for the same result in parts"
                if fits
                else "not even one fits: set network.checkpointing=true or lower data.patch"
            )
        )

    def _largest_batch(self, lr: Tensor, hr: Tensor) -> int:
        """The largest divisor of the batch that one step has memory for; 0 if none has."""
        whole = len(lr)
        for count in range(whole // 2, 0, -1):
            if whole % count:
                continue
            self.network.zero_grad(set_to_none=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            try:
                self.train_step(lr[:count], hr[:count])
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            else:
                return count
        return 0

    def _means(self) -> dict[str, float]:
        """Mean of each term since the last report, over all processes."""
        means: dict[str, float] = {}
        for name, value in self.sums.items():
            mean = reduced(self.accelerator, value, "mean") / self.config.run.log_every
            means[name] = float(mean)
        self.sums = {}
        return means

    def _all_stop(self) -> bool:
        """Whether any process was told to stop: they stop after the same step."""
        if self.accelerator.num_processes == 1:
            return self.stopping
        told = torch.tensor(float(self.stopping), device=self.accelerator.device)
        return bool(reduced(self.accelerator, told, "sum") > 0)

    def _to_device(self, pixels: Pixels8) -> Tensor:
        """Turn ``(B, H, W, 3)`` uint8 into a channels-last float batch in 0..1."""
        batch = torch.from_numpy(pixels).to(self.accelerator.device, non_blocking=True)
        return batch.permute(0, 3, 1, 2).float() / 255.0

    def _check_finite(self, step: tuple[dict[str, Tensor], Tensor, Tensor] | None) -> None:
        """Stop if a term of that step is no number, and keep the batch that did it."""
        if step is None:
            return
        terms, lr, hr = step
        bad = [name for name, value in terms.items() if not bool(torch.isfinite(value))]
        if not bad:
            return
        path = self.output / BAD_BATCH_FILE
        batch = {"lr": lr.contiguous().cpu(), "hr": hr.contiguous().cpu()}
        write_atomic(path, safetensors_bytes(batch))
        raise TrainingError(
            f"{', '.join(bad)} is not finite near step {self.step}; the batch is in {path} and "
            "the last checkpoint is intact: lower schedule.lr and go on with --resume"
        )

    def _check_weights(self) -> None:
        """Stop before weights that are no numbers replace good ones on disk.

        A gradient may break where its loss is finite; the next loss would tell, but too late.
        """
        trained = [*self.network.parameters(), *self.ema.values]
        if self.opponent is not None:
            trained += self.opponent.network.parameters()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in trained):
            raise TrainingError(
                f"weights are not finite at step {self.step}; the last checkpoint is intact: "
                "lower schedule.lr and go on with --resume"
            )

    def _validate(self, val: list[Pair], journal: Journal) -> None:
        with self.ema.applied(self.network) as averaged:
            found = validate(averaged, val, self.accelerator.device)
        journal.validation(self.step, found.record, found.shown)
        psnr, ssim = found.record["psnr_y"], found.record["ssim_y"]
        self.log(f"step {self.step}  validation {psnr:.3f} dB  SSIM {ssim:.4f}")
        if self.step > self.config.schedule.warmup and (dead := found.dead):
            raise TrainingError(
                f"the {dead} has died at step {self.step} "
                f"(detail RMS {found.record['detail_rms']:.2g}, gate mean "
                f"{found.record['gate_mean']:.3f}): start again with a lower schedule.lr"
            )
        if psnr > self.best:
            self.best = psnr
            self._save_weights(BEST_FILE)

    def _save_weights(self, name: str) -> None:
        config = self.config
        training = {
            "steps": self.step,
            "batch": config.data.batch,
            "patch": config.data.patch,
            "grow": [stage.model_dump() for stage in config.data.grow],
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
            "sums": self.sums,
            "network": self.network.state_dict(),
            "ema": self.ema.values,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "opponent": self.opponent.state_dict() if self.opponent is not None else None,
            "scaler": scaler.state_dict() if (scaler := self.accelerator.scaler) else None,
        }
        write_state(self.output, state)

    def _load_state(self, path: Path) -> None:
        state = read_state(path, self.accelerator.device)
        if state["digest"] != self.digest:
            raise TrainingError(
                f"{path} belongs to another configuration; resume with the one it had"
            )
        try:
            self.network.load_state_dict(state["network"])
            self.ema.values = state["ema"]
            self.sums = state["sums"]
            for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(stored)
            if self.opponent is not None:
                self.opponent.load_state_dict(state["opponent"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(f"{path} is no readable training state: {error}") from error
        self.step, self.best = int(state["step"]), float(state["best"])

    def _stop(self) -> None:
        self.log(f"stopping after step {self.step + 1}; go on with --resume")
        self.stopping = True


def _progress(step: int, steps: int, means: dict[str, float], rate: float, eta: float) -> str:
    """One line about how it goes; ``eta`` in seconds."""
    loss, *terms = (f"{name} {value:.5f}" for name, value in means.items())
    inside = f" ({', '.join(terms)})" if terms else ""
    return f"step {step}/{steps}  {loss}{inside}  {rate:.1f} steps/s  ETA {eta / 60:.0f} min"


class _Pace:
    """Steps per second since the last time it was asked."""

    def __init__(self, step: int) -> None:
        self.step, self.time = step, time.monotonic()

    def rate(self, step: int) -> float:
        now = time.monotonic()
        rate = (step - self.step) / (now - self.time)
        self.step, self.time = step, now
        return rate
