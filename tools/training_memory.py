"""Compute the GPU memory for training each variant from its computation graph.

Writes ``results/training_memory.json``. The tensors that a forward pass saves for the backward pass
are counted on the CPU, for one 32x32 crop under bfloat16 autocast, and scaled by area. With
checkpointing, each block saves only its input, and one block at a time is recomputed. Weights,
gradients, both moments of Adam and the average are float32. Workspaces of the engine are extra.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from paragonsr2.measure.machine import write_result
from paragonsr2.network.generator import build
from paragonsr2.training.config_file import load_config

SIDE = 32

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "training_memory.json"


class Kept:
    """Counts the bytes of the distinct tensors that autograd saves."""

    def __init__(self) -> None:
        self.tensors: dict[int, Tensor] = {}

    def __enter__(self) -> Kept:
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda x: x)
        self.hooks.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        self.hooks.__exit__(*problem)

    def _pack(self, tensor: Tensor) -> Tensor:
        self.tensors.setdefault(id(tensor.untyped_storage()), tensor)
        return tensor

    def bytes(self) -> int:
        """Bytes saved so far, without weights, which are counted elsewhere."""
        return sum(
            t.numel() * t.element_size()
            for t in self.tensors.values()
            if not isinstance(t, torch.nn.Parameter)
        )


def activations(variant: str, scale: int, expansion: int, *, again: bool) -> int:
    """Bytes saved for a crop of :data:`SIDE` pixels; ``again`` is with checkpointing."""
    network = build(variant, scale, expansion=expansion).train()
    blocks = 0
    largest = 0
    if again:
        features = torch.rand(1, network.conv_in.out_channels, SIDE, SIDE, requires_grad=True)
        for group in network.groups:
            for block in group.blocks:
                with Kept() as kept, torch.autocast("cpu", torch.bfloat16):
                    block(features)
                largest = max(largest, kept.bytes())
                blocks += features.numel() * features.element_size()
            group.blocks = torch.nn.ModuleList()
    with Kept() as kept, torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(1, 3, SIDE, SIDE))
    return kept.bytes() + largest + blocks


def main() -> None:
    """Count the memory for the fidelity configuration of each variant."""
    rows: list[dict[str, object]] = []
    for variant in ("realtime", "stream", "photo", "pro"):
        config = load_config(ROOT / "configs" / f"{variant}_x2_fidelity.toml")
        net = config.network
        batch, patch = config.data.crops_at(config.schedule.steps)
        weights = sum(p.numel() for p in build(variant, 2, expansion=net.expansion).parameters())
        for again in (False, True):
            small = activations(variant, net.scale, net.expansion, again=again)
            crop = small * patch**2 // SIDE**2
            rows.append(
                {
                    "variant": variant,
                    "patch": patch,
                    "batch": batch,
                    "checkpointing": again,
                    "parameters_trained": weights,
                    "state_bytes": weights * 4 * 5,
                    "activation_bytes_per_crop": crop,
                    "total_gib": round((weights * 20 + crop * batch) / 2**30, 2),
                }
            )
            print(rows[-1], flush=True)
    write_result(RESULT, {"precision": "bf16 autocast, float32 state", "rows": rows})


if __name__ == "__main__":
    main()
