"""Saving: the state that a run resumes from, and weights that are whole and finite."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from paragonsr2.errors import TrainingError
from paragonsr2.files import write_atomic
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.training.config import TrainConfig
from paragonsr2.training.state import STATE_FILE, read_state, write_state
from paragonsr2.weights.store import save_checkpoint

BAD_BATCH_FILE = "bad_batch.safetensors"
LAST_FILE = "last.safetensors"

#: Options that may change when a run is resumed: its length, its machine, what it reports.
_MAY_CHANGE = {
    "run": {"threads", "output", "precision", "validate_every", "checkpoint_minutes"},
    "schedule": {"steps"},
    "data": {"workers", "storage", "memory_gb", "cache", "cache_lr", "val_drawn"},
}


class Stateful(Protocol):
    """What can be saved and continued."""

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-identical continuation needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        ...


def config_digest(config: TrainConfig) -> str:
    """SHA-256 of the options that decide a run's result.

    Defaults are left out, so that an option added later does not end old runs.
    """
    deciding = config.model_dump_json(exclude=_MAY_CHANGE, exclude_defaults=True)
    return hashlib.sha256(deciding.encode()).hexdigest()


class Checkpoints:
    """The checkpoints in a run's folder.

    Args:
        config: of the run; its digest and the facts that weights carry come from here.
        resume: continue the run in the folder; otherwise there must be none.
        clock: seconds.

    Raises:
        TrainingError: the folder holds a run already, or none to resume.
    """

    def __init__(
        self, config: TrainConfig, *, resume: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self.digest = config.run.output, config_digest(config)
        self._variant, self._facts = config.network.variant, _facts(config)
        self._pause, self._clock = 60.0 * config.run.checkpoint_minutes, clock
        self._saved = clock()
        exists = (self.folder / STATE_FILE).exists()
        if exists and not resume:
            raise TrainingError(
                f"{self.folder} holds a run already; add --resume, or name another run.output"
            )
        if resume and not exists:
            raise TrainingError(f"there is nothing to resume in {self.folder}")

    def due(self) -> bool:
        """Whether ``run.checkpoint_minutes`` have passed since the last state."""
        return self._clock() - self._saved > self._pause

    def save(self, run: Stateful) -> None:
        """Write the state of ``run``, atomically.

        Raises:
            OutputError: it cannot be written; the previous state is intact.
        """
        write_state(self.folder, {"digest": self.digest, **run.state_dict()})
        self._saved = self._clock()

    def load(self, run: Stateful, device: torch.device) -> None:
        """Continue ``run`` from its state.

        Raises:
            TrainingError: the state is damaged or belongs to another configuration.
        """
        path = self.folder / STATE_FILE
        state = read_state(path, device)
        if state["digest"] != self.digest:
            raise TrainingError(
                f"{path} belongs to another configuration; resume it with its own configuration"
            )
        try:
            run.load_state_dict(state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(f"{path} is not a readable training state: {error}") from error

    def save_weights(self, name: str, network: ParagonSR2, step: int) -> None:
        """Write ``network`` as a checkpoint with the facts of its training.

        Raises:
            OutputError: it cannot be written.
        """
        facts = {"steps": step, **self._facts, "config_sha256": self.digest}
        save_checkpoint(self.folder / name, network, self._variant, facts)

    def keep_batch(self, lr: Tensor, hr: Tensor) -> Path:
        """Keep a batch that broke the run, and return its path.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.folder / BAD_BATCH_FILE
        batch = {"lr": lr.contiguous().cpu(), "hr": hr.contiguous().cpu()}
        write_atomic(path, safetensors_bytes(batch))
        return path


def check_weights(weights: Iterable[Tensor], step: int) -> None:
    """Stop before weights that are not finite replace good ones on disk.

    A gradient may be infinite although its loss is finite; the next loss would show it, but only
    after the checkpoint.

    Raises:
        TrainingError: a weight is not finite.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights):
        raise TrainingError(
            f"weights are not finite at step {step}; the last checkpoint is intact: "
            "lower schedule.lr and continue with --resume"
        )


def _facts(config: TrainConfig) -> dict[str, Any]:
    """What the metadata of the weights say of their training."""
    return {
        "batch": config.data.batch,
        "patch": config.data.patch,
        "grow": [stage.model_dump() for stage in config.data.grow],
        "loss": config.loss.model_dump(exclude_none=True),
        "lr": config.schedule.lr,
        "seed": config.run.seed,
        "data": [folder.name for folder in config.data.train],
        "data_licence": config.data.licence,
        "pretrain": config.network.pretrain.name if config.network.pretrain else None,
    }
