"""Beginning a run from the weights of another."""

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
    """Take over the weights of a checkpoint; at another scale, all but the upsampler.

    Args:
        network: to start, in trained form.
        path: the checkpoint.
        options: that the network was built with; a checkpoint of another variant is refused.
        log: told what the weights and the network do not share.

    Raises:
        TrainingError: the checkpoint is in deployed form, or was made with other options.
        WeightsError: it is not readable, or of another variant.
    """
    checkpoint = load_checkpoint(path, arch=options.variant)
    if checkpoint.description.collapsed:
        raise TrainingError(f"{path} is in deployed form; start from trained form")
    old, state = checkpoint.network, network.state_dict()
    kept = [key for key in state if key != ALPHA_KEY]
    if old.scale != network.scale:
        kept = [key for key in kept if not key.startswith("upsampler.")]
        log(f"{path.name} is x{old.scale}: its upsampler is left out and learned anew")
    elif old.upsampler_alpha != network.upsampler_alpha:
        log(
            f"{path.name} has upsampler_alpha {old.upsampler_alpha:g}, this run "
            f"{network.upsampler_alpha:g}: the detail has to settle on the new base first"
        )
    theirs = old.state_dict()
    try:
        network.load_state_dict({**state, **{key: theirs[key] for key in kept}})
    except (KeyError, RuntimeError) as error:
        raise TrainingError(
            f"{path} does not fit network.expansion {options.expansion} and the other options of "
            f"this run; look: paragonsr2 inspect {path}"
        ) from error
