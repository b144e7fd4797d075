"""Starting a run from the weights of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from paragonsr2.errors import TrainingError
from paragonsr2.network.generator import ALPHA_KEY, ParagonSR2
from paragonsr2.training.config import NetworkConfig
from paragonsr2.weights.store import load_checkpoint


def start_from(
    network: ParagonSR2, path: Path, options: NetworkConfig, log: Callable[[str], None]
) -> None:
    """Load the weights of a checkpoint; from another scale, all but the upsampler.

    A checkpoint in deployed form, or of another expansion, becomes the training form that collapses
    to the same.

    Args:
        network: receives the weights, in training form.
        path: the checkpoint, in training or deployed form.
        options: the section ``[network]``; the checkpoint must be of the same variant.
        log: receives what the checkpoint and the network do not share.

    Raises:
        TrainingError: the checkpoint was trained for INT8, or with other options.
        WeightsError: it is unreadable, or of another variant.
    """
    checkpoint = load_checkpoint(path, arch=options.variant)
    about = checkpoint.description
    if about.int8:
        raise TrainingError(f"{path} was trained for INT8; start from what it started from")
    old = checkpoint.network
    if about.collapsed or about.expansion != options.expansion:
        if not about.collapsed:
            log(
                f"{path.name} has expansion {about.expansion}, this run {options.expansion}: "
                "it starts from what the weights deploy as"
            )
            old = old.collapse()
        trained = replace(about, collapsed=False, expansion=options.expansion).build()
        trained.take(old)
        old = trained
    state = network.state_dict()
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
            f"{path} does not fit the options of this run; see: paragonsr2 inspect {path}"
        ) from error
