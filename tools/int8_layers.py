"""What rounding each convolution to 8 bits costs: ``results/decisions/int8_layers.json``.

    python tools/int8_layers.py --data ../shared/data

For the bundled fidelity models at x2, without any training: one convolution rounds at a time, then
all of the body, then the fusion beside them. The figures are PSNR against the float32 network on a
crop of a validation picture; the steps come from another one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tools_table import crops
from torch import Tensor, nn

from paragonsr2.measure.machine import write_result
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.network.int8 import Int8Conv, calibrate, int8_convs, set_rounding, to_int8
from paragonsr2.weights.catalogue import bundled_path, find
from paragonsr2.weights.store import load_checkpoint

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "decisions" / "int8_layers.json"
#: Where a deployed network holds its fusion.
FUSION = "fuse.folded"


def psnr(made: Tensor, wanted: Tensor) -> float:
    """Decibel, peak 1."""
    return round(float(-10 * torch.log10((made - wanted).square().mean())), 1)


def costs(network: ParagonSR2, pictures: list[Tensor]) -> dict[str, float]:
    """PSNR by what rounds."""
    seen, tried = pictures
    wanted = network(tried)
    rounded = to_int8(network)
    fusion = rounded.get_submodule(FUSION)
    assert isinstance(fusion, nn.Conv2d)
    rounded.fuse.register_module("folded", Int8Conv(fusion))
    calibrate(rounded, seen)
    found = {"all and the fusion": psnr(rounded(tried), wanted)}
    for name, conv in int8_convs(rounded):
        set_rounding(rounded, on=False)
        conv.rounding = True
        found[name] = psnr(rounded(tried), wanted)
    set_rounding(rounded, on=True)
    dict(int8_convs(rounded))[FUSION].rounding = False
    return {"all of the body": psnr(rounded(tried), wanted), **found}


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with val/")
    options = parser.parse_args()
    pictures = [torch.from_numpy(x) for x in crops(options.data)[:2]]
    found: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        for model in ("realtime", "stream"):
            checkpoint = load_checkpoint(bundled_path(find(model, 2), "safetensors"))
            found[model] = costs(checkpoint.network, pictures)
            print(model, found[model])
    write_result(RESULT, {"scale": 2, "psnr_to_float32": found})


if __name__ == "__main__":
    main()
