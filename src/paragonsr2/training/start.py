"""Starting a run from the weights of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from paragonsr2.errors import TrainingError
from paragonsr2.network.generator import ALPHA_KEY, ParagonSR2
from paragonsr2.training.config import NetworkConfig
from paragonsr2.weights.store import load_checkpoint


def start_from(
    network: ParagonSR2, path: Path, options: NetworkConfig, log: Callable[[str], None]
) -> None:
    """Load the weights of a checkpoint; from another scale, all but the upsampler.

    Args:
        network: receives the weights, in training form.
        path: the checkpoint.
        options: the section ``[network]``; the checkpoint must be of the same variant.
        log: receives what the checkpoint and the network do not share.

    Raises:
        TrainingError: the checkpoint is in deployed form, or was trained with other options.
        WeightsError: it is unreadable, or of another variant.
    """
    checkpoint = load_checkpoint(path, arch=options.variant)
    if checkpoint.description.collapsed:
        raise TrainingError(
            f"{path} is in deployed form; start from the checkpoint it was exported from"
        )
    old, state = checkpoint.network, network.state_dict()
    kept = [key for key in state if key != ALPHA_KEY]
    if old.scale != network.scale:
        kept = [key for key in kept if not key.startswith("upsampler.")]
        log(f"{path.name} is x{old.scale}: its upsampler is not loaded but trained from scratch")
    elif old.upsampler_alpha != network.upsampler_alpha:
        log(
            f"{path.name} has upsampler_alpha {old.upsampler_alpha:g}, this run "
            f"{network.upsampler_alpha:g}: the network will first have to adapt to the new base"
        )
    theirs = old.state_dict()
    try:
        network.load_state_dict({**state, **{key: theirs[key] for key in kept}})
    except (KeyError, RuntimeError) as error:
        raise TrainingError(
            f"{path} does not fit network.expansion {options.expansion} and the other options of "
            f"this run; see: paragonsr2 inspect {path}"
        ) from error
