"""Run ``convert_onnx_release.py`` for every variant and scale, and record the parity it proves.

    python tools/export_matrix.py --data ../shared/data                  # all
    python tools/export_matrix.py --data ../shared/data --only pro --scales 8

Bundled models are checked on the validation images as well. Variants and scales without bundled
weights get random ones, none of them zero. The result file keeps the rows that a run does not
produce; each row records its commit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import onnx
import torch

from paragonsr2.measure.machine import commit, write_result
from paragonsr2.network.generator import build
from paragonsr2.variants import ARCH_PREFIX, SCALES, VARIANTS
from paragonsr2.weights.catalogue import bundled_path, entries
from paragonsr2.weights.store import save_checkpoint

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "export" / "matrix.json"


def random_checkpoint(path: Path, variant: str, scale: int) -> None:
    """Write a network whose last convolutions, gates and scales have left their initial values.

    As in a trained network, the detail stays within the range of images: float16 cannot resolve
    steps of 0.001 in values around ten.
    """
    torch.manual_seed(3)
    network = build(variant, scale)
    inputs = (torch.rand(1, 3, 48, 48), torch.zeros(1, 3, 48, 48), torch.ones(1, 3, 48, 48))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
        largest = max(float(network.paths(x).detail.abs().max()) for x in inputs)
        network.upsampler.last.weight.mul_(min(1.0, 0.5 / largest))
        if network.upsampler.last.bias is not None:
            network.upsampler.last.bias.mul_(min(1.0, 0.5 / largest))
    save_checkpoint(path, network, variant)


def release(checkpoint: Path, variant: str, scale: int, val_dir: Path | None) -> dict[str, object]:
    """Export one checkpoint as a user would, and read the report."""
    arch = ARCH_PREFIX + variant
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "convert_onnx_release.py", "--checkpoint", str(checkpoint)]
        command += ["--arch", arch, "--scale", str(scale), "--output", folder]
        command += ["--val_dir", str(val_dir)] if val_dir else []
        started = perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        seconds = perf_counter() - started
        if done.returncode:
            return {"passed": False, "error": done.stderr.strip()}
        models = json.loads((Path(folder) / f"{arch}_report.json").read_text())["models"]
        row: dict[str, object] = {"passed": True, "inputs": len(models[0]["parity"])}
        for model in models:
            path = Path(folder) / model["file"]
            onnx.checker.check_model(str(path), full_check=True)
            precision = model["precision"]
            row[f"{precision}_bytes"] = path.stat().st_size
            row[f"{precision}_max_error"] = max(one["max_error"] for one in model["parity"])
            row[f"{precision}_least_psnr"] = model["worst"]["psnr"]
        return {**row, "checker": "accepts both", "seconds": round(seconds, 1)}


def main() -> None:
    """Export the requested models and update the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds val/")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--scales", nargs="+", type=int, choices=SCALES, default=list(SCALES))
    options = parser.parse_args()
    bundled = {(one.variant, one.scale): one for one in entries() if one.kind == "fidelity"}
    rows = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
    code = commit()
    for variant in options.only:
        for scale in options.scales:
            entry = bundled.get((variant, scale))
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "random.safetensors"
                if entry:
                    path = bundled_path(entry, "safetensors")
                else:
                    random_checkpoint(path, variant, scale)
                val = (options.data / "val").resolve() if entry else None
                row = release(path, variant, scale, val)
            row = {"weights": "bundled" if entry else "random", **row, "commit": code}
            rows[f"{variant} x{scale}"] = row
            print(f"{variant} x{scale}: {json.dumps(row)}", flush=True)
            write_result(RESULT, {"rows": rows})
    if not all(row["passed"] for row in rows.values()):
        sys.exit("not all exports passed; see " + str(RESULT))


if __name__ == "__main__":
    main()
