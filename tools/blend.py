"""Blend two checkpoints that share their start: weights between a faithful and a crisp model.

    python tools/blend.py FAITHFUL.safetensors CRISP.safetensors --share 0.5 -o OUT.safetensors

Each weight is ``(1 - share) * FAITHFUL + share * CRISP``. Source: Wang et al., "ESRGAN", 2018
(network interpolation).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from paragonsr2.weights.store import load_checkpoint, save_checkpoint


def blend(faithful: Path, crisp: Path, share: float, output: Path) -> None:
    """Write a blend of two checkpoints.

    Args:
        faithful: checkpoint.
        crisp: checkpoint of the same network; the blend takes its description.
        share: of ``crisp``, 0..1.
        output: path of the blend.

    Raises:
        ValueError: the checkpoints are of different networks.
    """
    first, second = load_checkpoint(faithful), load_checkpoint(crisp)
    if first.description != second.description:
        raise ValueError("the checkpoints are of different networks")
    theirs = second.network.state_dict()
    blended = {
        key: torch.lerp(value, theirs[key], share) if value.is_floating_point() else value
        for key, value in first.network.state_dict().items()
    }
    first.network.load_state_dict(blended)
    rest = f"{1 - share:g} of {faithful.name}"
    training = {**second.training, "blend": f"{share:g} of it and {rest}"}
    save_checkpoint(output, first.network, first.description.variant, training)


def main() -> None:
    """Write the blend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faithful", type=Path)
    parser.add_argument("crisp", type=Path)
    parser.add_argument("--share", type=float, required=True, help="of the second, 0..1")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        blend(options.faithful, options.crisp, options.share, options.output)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
