"""Bundle a trained checkpoint: export it, measure it and add it to the catalogue.

    python tools/release.py runs/realtime_x2_fidelity/best.safetensors --kind fidelity \
        --recipe realtime_x2_fidelity --data ../shared/data

Writes the weights and the catalogue to ``src/paragonsr2/weights/files``, the measured quality to
``results/quality`` and the model cards to ``docs/models``. The catalogue repeats the quality
because an installed package has no ``results``; a test keeps both equal. The wheel has to stay
small: models of other kinds than fidelity are stored as float16, at half the size, and
``--deployed`` stores a network in deployed form, from which it can be trained further as well. A
checkpoint that was trained for INT8 joins the bundled model that it started from, as one more file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from cards import write_cards

from paragonsr2.export.release import release_onnx
from paragonsr2.files import write_atomic
from paragonsr2.measure.cost import network_cost
from paragonsr2.measure.machine import commit
from paragonsr2.weights.catalogue import CATALOGUE, FOLDER
from paragonsr2.weights.store import Checkpoint, load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parent.parent
QUALITY = ROOT / "results" / "quality"
SETS = ("benchmark/Set5", "benchmark/Set14", "benchmark/Urban100-20", "val")


def measure(model: Path, data: Path, result: Path) -> dict[str, dict[str, float]]:
    """Run ``paragonsr2 evaluate`` on the bundled ONNX file, as a user would."""
    name = model.relative_to(ROOT)  # the result file must not name this checkout's folder
    command = [sys.executable, "-m", "paragonsr2", "evaluate", "--model", str(name)]
    command += [
        "--result",
        str(result.resolve()),
        "--json",
        *(str(data.resolve() / part) for part in SETS),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout)["sets"]


def add_int8(checkpoint: Checkpoint, name: str, options: argparse.Namespace) -> None:
    """Add the INT8 file of a model that is bundled already."""
    training = {**checkpoint.training, "recipe": options.recipe, "commit": commit()}
    path = FOLDER / f"{name}_int8.onnx"
    with tempfile.TemporaryDirectory() as folder:
        described = replace(checkpoint, training=training)
        (proof,) = release_onnx(described, Path(folder), val_dir=options.data / "val")
        shutil.copyfile(proof.path, path)
        print(f"{proof.precision}: worst {proof.worst.psnr:.1f} dB on {proof.worst.name}")
    table = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for row in table["models"]:
        if f"paragonsr2_{row['variant']}_x{row['scale']}_{row['kind']}" == name:
            row["files"]["onnx_int8"] = {"name": path.name, "sha256": digest}
    write_atomic(CATALOGUE, (json.dumps(table, indent=1) + "\n").encode())
    write_cards()


def main() -> None:
    """Bundle one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--kind",
        default="fidelity",
        choices=["fidelity", "perceptual", "compressed", "real", "art"],
    )
    parser.add_argument("--licence", default="MIT")
    parser.add_argument("--recipe", required=True, help="name of its configuration in configs/")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--deployed", action="store_true", help="store the deployed form")
    options = parser.parse_args()

    checkpoint = load_checkpoint(options.checkpoint)
    about = checkpoint.description
    name = f"paragonsr2_{about.variant}_x{about.scale}_{options.kind}"
    if about.int8:
        add_int8(checkpoint, name, options)
        return
    training = {**checkpoint.training, "recipe": options.recipe, "commit": commit()}
    # Rounded before it is exported, so that all files hold the same weights.
    dtype = torch.float32 if options.kind == "fidelity" else torch.float16
    with torch.no_grad():
        for parameter in checkpoint.network.parameters():
            parameter.copy_(parameter.to(dtype))
    files = {
        "onnx": FOLDER / f"{name}_fp32.onnx",
        "onnx_fp16": FOLDER / f"{name}_fp16.onnx",
        "safetensors": FOLDER / f"{name}.safetensors",
    }
    with tempfile.TemporaryDirectory() as folder:
        described = replace(checkpoint, training=training)
        proofs = release_onnx(described, Path(folder), val_dir=options.data / "val")
        for kind, proof in zip(("onnx", "onnx_fp16"), proofs, strict=True):
            shutil.copyfile(proof.path, files[kind])
            print(f"{proof.precision}: worst {proof.worst.psnr:.1f} dB on {proof.worst.name}")
    stored = checkpoint.network
    if options.deployed and not stored.is_collapsed:
        stored = stored.collapse()
    save_checkpoint(files["safetensors"], stored, about.variant, training, dtype=dtype)
    cost = network_cost(checkpoint.network)
    entry = {
        "variant": about.variant,
        "scale": about.scale,
        "kind": options.kind,
        "licence": options.licence,
        "parameters": cost.parameters,
        "kmacs_per_pixel": round(cost.kmacs_per_pixel, 2),
        "files": {
            kind: {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for kind, path in files.items()
        },
        "training": training,
        "quality": measure(files["onnx"], options.data, QUALITY / f"{name}.json"),
    }
    table = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    key = (about.variant, about.scale, options.kind)
    others = [row for row in table["models"] if (row["variant"], row["scale"], row["kind"]) != key]
    table["models"] = sorted([*others, entry], key=lambda row: (row["parameters"], row["scale"]))
    write_atomic(CATALOGUE, (json.dumps(table, indent=1) + "\n").encode())
    write_cards()
    for set_name, row in entry["quality"].items():
        print(f"{set_name:<16} {row['psnr_y']:.3f} dB  SSIM {row['ssim_y']:.4f}")


if __name__ == "__main__":
    main()
