"""The training loop, for fidelity and perceptual models; it reads from top to bottom."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paragonsr2.errors import TrainingError
from paragonsr2.network.generator import build, channels_last
from paragonsr2.network.int8 import calibrate, to_int8
from paragonsr2.training.adversarial import build_opponent, reduced
from paragonsr2.training.average import Ema
from paragonsr2.training.batches import device_batches, on_device
from paragonsr2.training.checkpoints import LAST_FILE, Checkpoints, check_weights
from paragonsr2.training.config import NetworkConfig, ScheduleConfig, TrainConfig
from paragonsr2.training.data import CropSampler
from paragonsr2.training.dataset import prepare
from paragonsr2.training.journal import VALIDATION_FILE, Journal
from paragonsr2.training.losses import GeneratorLosses
from paragonsr2.training.machine import build_accelerator, graceful, largest_batch, out_of_memory
from paragonsr2.training.meters import Every, LossMeans, Pace, Progress
from paragonsr2.training.optimizer import build_optimizers
from paragonsr2.training.processes import Processes
from paragonsr2.training.report import outcome, write_report
from paragonsr2.training.start import start_from
from paragonsr2.training.state import BEST_FILE
from paragonsr2.training.validation import ValidationSet, Validator
from paragonsr2.variants import VARIANTS

#: Crops by which the steps of an INT8 network are set before it is trained.
CALIBRATION_CROPS = 64

#: Seconds between two updates of a live progress display.
SHOW_EVERY = 0.25


def learning_rate(schedule: ScheduleConfig, step: int) -> float:
    """Linear warm-up, then cosine from ``lr`` to ``final_lr`` at the last step."""
    if step < schedule.warmup:
        return schedule.lr * (step + 1) / schedule.warmup
    progress = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return schedule.final_lr + (schedule.lr - schedule.final_lr) * cosine


class _Done(NamedTuple):
    """A step whose losses have not been checked yet."""

    terms: dict[str, Tensor]
    lr: Tensor
    hr: Tensor


class Trainer:
    """One run: built from its configuration, then :meth:`run`.

    Args:
        config: of the run.
        resume: continue from the state in ``run.output``.
        log: receives one line of text now and then.
        show: receives the progress some times a second, for a live display; progress is then not
            logged.

    Raises:
        TrainingError: unreadable data, a state that does not fit, or a run in the way.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        resume: bool = False,
        log: Callable[[str], None] = print,
        show: Callable[[Progress], None] | None = None,
    ) -> None:
        self.config, self._log, self._show = config, log, show
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        self.accelerator = build_accelerator(config.run, log)
        self.processes = Processes.of(self.accelerator)
        torch.manual_seed(config.run.seed)
        self.checkpoints = Checkpoints(config, resume=resume)

        net, device = config.network, self.accelerator.device
        options = {"upsampler_alpha": net.upsampler_alpha, "expansion": net.expansion}
        network = build(net.variant, net.scale, **options)
        if net.pretrain is not None and not resume:
            start_from(network, net.pretrain, net, self.log)
        if net.int8:
            network = to_int8(network)
        self._check_alpha(net, perceptual=config.loss.perceptual)
        network.set_checkpointing(net.checkpointing)
        self.network = channels_last(network.to(device))
        self.ema = Ema(self.network, config.schedule.ema)
        with self.accelerator.main_process_first():  # one process downloads for all
            self.loss = GeneratorLosses(config.loss, device, log)
        optimizers = build_optimizers(self.network, config.schedule)
        if config.run.compile:
            self.network.compile()
        self.model, *self.optimizers = self.accelerator.prepare(self.network, *optimizers)
        self.opponent = None
        if (game := config.loss.adversarial) is not None:
            side = config.data.patch * net.scale
            row = VARIANTS[net.variant]
            self.opponent = build_opponent(game, config.discriminator, row, side, self.accelerator)
        self.step, self.best = 0, -math.inf
        self.means = LossMeans()
        self.stopping = False
        if resume:
            self.checkpoints.load(self, device)

    def log(self, line: str) -> None:
        """Pass ``line`` on, once for all processes."""
        if self.accelerator.is_main_process:
            self._log(line)

    def _check_alpha(self, net: NetworkConfig, *, perceptual: bool) -> None:
        low, high = VARIANTS[net.variant].perceptual_alpha if perceptual else (0.0, 0.0)
        if not low <= net.upsampler_alpha <= high:
            usual = f"{low:g} to {high:g}" if high else "0"
            self.log(
                f"warning: upsampler_alpha {net.upsampler_alpha:g} is unusual for "
                f"{'perceptual' if perceptual else 'fidelity'} training of {net.variant}; "
                f"the usual value is {usual}"
            )

    def prepare_data(self) -> tuple[CropSampler, ValidationSet]:
        """Check and load the data; see :func:`paragonsr2.training.dataset.prepare`."""
        config = self.config
        return prepare(
            config.data, config.degradation, config.run, config.network.scale,
            log=self.log, processes=self.processes,
        )  # fmt: skip

    def batches(self, sampler: CropSampler) -> Generator[tuple[Tensor, Tensor]]:
        """Batches from the current step on; see :func:`device_batches`."""
        data, parts = self.config.data, self.config.schedule.accumulate
        device = self.accelerator.device
        return device_batches(sampler, data, parts, self.step, self.processes, device)

    def run(self) -> None:
        """Train to the last step, or until asked to stop; at the end the state is on disk.

        Raises:
            TrainingError: a loss is not finite, memory does not suffice, or the detail path has
                died. The last state is intact.
        """
        sampler, val = self.prepare_data()
        if self.config.network.int8 and self.step == 0:
            self._calibrate(sampler)
        self.output.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            journal = None
            if self.accelerator.is_main_process:
                journal = stack.enter_context(Journal(self.output, self.step))
            validator = Validator(
                val, self.accelerator.device, self.processes, journal,
                self.config.schedule.warmup, self.log,
            )  # fmt: skip
            batches = stack.enter_context(contextlib.closing(self.batches(sampler)))
            with graceful(self._stop):
                self._train(batches, validator, journal)
            self._finish(validator, journal)

    def _calibrate(self, sampler: CropSampler) -> None:
        """Set the steps of an INT8 network by some crops of the training pictures."""
        lr, _ = sampler.batch(0, range(CALIBRATION_CROPS))
        calibrate(self.network, on_device(lr, self.accelerator.device))
        self.ema = Ema(self.network, self.config.schedule.ema)

    def _train(
        self,
        batches: Generator[tuple[Tensor, Tensor]],
        validator: Validator,
        journal: Journal | None,
    ) -> None:
        run, steps = self.config.run, self.config.schedule.steps
        if self.step == 0:
            self._validate(validator)
        else:
            self.log(f"resumed at step {self.step}; best validation so far {self.best:.3f} dB")
        pace, display = Pace(self.step, steps), Every(SHOW_EVERY)
        done: _Done | None = None
        while self.step < steps and not self._all_stop():
            lr, hr = next(batches)
            terms = self._try_step(lr, hr)
            # One step late, so that a GPU never waits for the check.
            self._check_losses(done)
            done = _Done(terms, lr, hr)
            self.means.add(terms)
            self.step += 1
            if self.step % run.log_every == 0:
                self._report(pace, journal)
            if self.step == steps or self.step % run.validate_every == 0:
                self._check_losses(done)
                self._check_weights()
                self._validate(validator)
                pace.restart(self.step)
            if journal is not None and self.checkpoints.due():
                self._check_losses(done)
                self._check_weights()
                self.checkpoints.save(self)
            if self._show is not None and display.due():
                self._show(self._progress(pace, self.means.peek(), validator))
        if self.stopping:
            self.log(f"stopping after step {self.step}; continue with --resume")
        self._check_losses(done)

    def _finish(self, validator: Validator, journal: Journal | None) -> None:
        """Save; at the end of the run write the report and say what was gained."""
        self._check_weights()
        if journal is not None:
            self.checkpoints.save(self)
            with self.ema.applied(self.network) as averaged:
                self.checkpoints.save_weights(LAST_FILE, averaged, self.step)
        if self.step < self.config.schedule.steps:
            return
        with self.ema.applied(self.network) as averaged:
            shown = (validator.last or validator.measure(averaged)).shown
        if journal is not None:
            report = write_report(journal, self.config, self.network, shown)
            self.log(f"finished: {outcome(journal.read(VALIDATION_FILE))}")
            if (best := self.output / BEST_FILE).exists():
                self.log(f"best weights: {best}")
            self.log(f"report: {report}")

    def close(self) -> None:
        """Leave together with the other processes; without this, some abort as they end."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def train_step(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Update all weights and their average once; the caller counts the step.

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
        meets = self.opponent is not None and self.step >= self._opponent_starts
        terms = self._train_generator(parts, meets=meets)
        if self.opponent is not None and meets:
            self.opponent.set_rate(self.config.discriminator.lr * rate / schedule.lr)
            self.opponent.update(schedule.clip)
        self.ema.update(self.network, self.step)
        return terms

    @property
    def _opponent_starts(self) -> int:
        game, features = self.config.loss.adversarial, self.config.loss.features
        if game is None:
            return 0
        first = min(game.start, game.start if features is None else features.start)
        return max(0, first - self.config.discriminator.lead)

    def _train_generator(
        self, parts: Sequence[tuple[Tensor, Tensor]], *, meets: bool
    ) -> dict[str, Tensor]:
        """Update the generator from the parts of a batch; return mean terms.

        Args:
            parts: of equal size.
            meets: whether the opponent judges them, and collects gradients of its own.
        """
        sums: dict[str, Tensor] = {}
        for index, (lr, hr) in enumerate(parts):
            with self._gradients_shared(index == len(parts) - 1):
                loss, terms = self._generate(lr, hr, 1 / len(parts), meets=meets)
                self.accelerator.backward(loss / len(parts))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / len(parts)
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.schedule.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        # Now, not before the next pass: accelerate would have the loss scaler look at these
        # gradients again in the opponent's step.
        self.network.zero_grad(set_to_none=True)
        return sums

    def _gradients_shared(self, shared: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients only with the last part of a batch."""
        return contextlib.nullcontext() if shared else self.accelerator.no_sync(self.model)

    def _generate(
        self, lr: Tensor, hr: Tensor, share: float, *, meets: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What to minimise for a part of a batch, and the loss with its terms to report."""
        sr_ema = None
        if self.loss.weight_at("artefact", self.step) > 0.0:
            # Before the live pass: the network runs with its averaged parameters meanwhile.
            with self.ema.applied(self.network) as averaged, self.accelerator.autocast():
                sr_ema = averaged(lr)
        with self.accelerator.autocast():
            sr = self.model(lr)
        report = self.loss(self.step, sr, hr, sr_ema=sr_ema)
        aim, total, terms = report.total, report.total.detach(), dict(report.terms)
        if self.opponent is not None and meets:
            game = self.loss.weight_at("adversarial", self.step)
            features = self.loss.weight_at("features", self.step)
            met = self.opponent.meet(hr, sr, self.step, game=game, features=features, share=share)
            terms["discriminator"] = met.loss
            if met.pull is not None:
                # Its gradient with respect to the pictures is the pull.
                aim = aim + (sr * met.pull).sum()
                total, terms["adversarial"] = total + game * met.won, met.won
            if met.matching is not None:
                total, terms["features"] = total + features * met.matching, met.matching
        return aim, {"loss": total, **(terms if len(terms) > 1 else {})}

    def _try_step(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """:meth:`train_step`, with advice where memory does not suffice."""
        try:
            return self.train_step(lr, hr)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            failed = error
        failed.__traceback__ = None  # it holds the tensors of the failed step
        fits = largest_batch(self.train_step, self.network, lr, hr)
        accumulate = len(lr) // fits * self.config.schedule.accumulate if fits else 0
        raise TrainingError(
            f"out of memory with {len(lr)} crops of {lr.shape[-1]} pixels per process; "
            + (
                f"{fits} fit: set data.batch={fits * self.processes.world}, or "
                f"schedule.accumulate={accumulate} for the same result in parts"
                if fits
                else "not even one fits: set network.checkpointing=true or lower data.patch"
            )
        )

    def _all_stop(self) -> bool:
        """Whether any process was asked to stop: they stop after the same step."""
        if self.processes.world == 1:
            return self.stopping
        asked = torch.tensor(float(self.stopping), device=self.accelerator.device)
        return bool(reduced(self.accelerator, asked, "sum") > 0)

    def _stop(self) -> None:
        # A signal may come while a line is being written, so nothing is written here.
        self.stopping = True

    def _report(self, pace: Pace, journal: Journal | None) -> None:
        """Log the means since the last report, over all processes."""
        means = self.means.take(lambda value: reduced(self.accelerator, value, "mean"))
        if journal is None:
            return
        progress = self._progress(pace, means)
        journal.training(self.step, {**means, "steps_per_second": progress.rate})
        if self._show is None:
            self.log(progress.line())
        pace.restart(self.step)

    def _progress(
        self, pace: Pace, losses: dict[str, float], validator: Validator | None = None
    ) -> Progress:
        last = validator.last.text() if validator is not None and validator.last else ""
        return Progress(
            self.step, self.config.schedule.steps, losses, pace.rate(self.step),
            pace.seconds_left(self.step), last,
        )  # fmt: skip

    def _validate(self, validator: Validator) -> None:
        """Validate the averaged network, and keep it if none was better."""

        def show(done: int, of: int) -> None:
            if self._show is not None:
                doing = f"validating, picture {done + 1} of {of}"
                self._show(Progress(self.step, self.config.schedule.steps, doing=doing))

        with self.ema.applied(self.network) as averaged:
            psnr = validator(averaged, self.step, show)
            # Before the first step there is nothing of this run to keep.
            if self.step > 0 and psnr > self.best:
                self.best = psnr
                if self.accelerator.is_main_process:
                    self.checkpoints.save_weights(BEST_FILE, averaged, self.step)

    def _check_losses(self, done: _Done | None) -> None:
        """Stop if a loss of that step is not finite, and keep the batch that caused it."""
        if done is None:
            return
        bad = [name for name, value in done.terms.items() if not bool(torch.isfinite(value))]
        if bad:
            path = self.checkpoints.keep_batch(done.lr, done.hr)
            raise TrainingError(
                f"{', '.join(bad)} is not finite near step {self.step}; the batch is in {path} and "
                "the last checkpoint is intact: lower schedule.lr and continue with --resume"
            )

    def _check_weights(self) -> None:
        trained = [*self.network.parameters(), *self.ema.values]
        if self.opponent is not None:
            trained += self.opponent.network.parameters()
        check_weights(trained, self.step)

    @property
    def output(self) -> Path:
        """Folder of the run."""
        return self.config.run.output

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-identical continuation needs."""
        return {
            "step": self.step,
            "best": self.best,
            **self.means.state_dict(),
            "network": self.network.state_dict(),
            "ema": self.ema.values,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "opponent": self.opponent.state_dict() if self.opponent is not None else None,
            "scaler": scaler.state_dict() if (scaler := self.accelerator.scaler) else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.network.load_state_dict(state["network"])
        self.ema.values = state["ema"]
        self.step, self.best = int(state["step"]), float(state["best"])
        self.means.load_state_dict(state, self.step % self.config.run.log_every)
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        if self.opponent is not None:
            self.opponent.load_state_dict(state["opponent"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
