"""A checkpoint to checked ONNX files and a report: all of them, or none."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from paragonsr2.errors import ExportError, InputError, OutputError
from paragonsr2.export.onnx import OPSET, OnnxPrecision, build_onnx
from paragonsr2.export.parity import Parity, check_parity, extreme_inputs, odd_inputs
from paragonsr2.files import write_atomic
from paragonsr2.measure.quality import crop_to_multiple, shrink
from paragonsr2.pixels.arrays import FloatNCHW
from paragonsr2.pixels.convert import to_float
from paragonsr2.variants import ARCH_PREFIX
from paragonsr2.weights.store import Checkpoint

PRECISIONS: tuple[OnnxPrecision, ...] = ("fp32", "fp16")


@dataclass(frozen=True)
class Released:
    """One written model and its proof.

    Attributes:
        path: the file.
        precision: of its graph.
        parity: by input.
    """

    path: Path
    precision: OnnxPrecision
    parity: list[Parity]

    @property
    def worst(self) -> Parity:
        """The input on which it is farthest from PyTorch."""
        return min(self.parity, key=lambda p: p.psnr)


def release_onnx(
    checkpoint: Checkpoint, output: Path, *, val_dir: Path | None = None, opset: int = OPSET
) -> list[Released]:
    """Export FP32 and FP16, prove both, then write them and a JSON report.

    Args:
        checkpoint: any form.
        output: folder; ``<arch>_fp32.onnx``, ``<arch>_fp16.onnx`` and ``<arch>_report.json``
            are written there.
        val_dir: also prove on every picture there, shrunk by the scale.
        opset: 17, 18 or 20.

    Raises:
        ExportError: a model is not the network; nothing was written.
        InputError: ``val_dir`` holds no readable pictures.
        OutputError: the folder cannot be written.
    """
    _require_writable(output)
    network, about = checkpoint.network, checkpoint.description
    arch = ARCH_PREFIX + about.variant
    files: list[tuple[Path, bytes]] = []
    released: list[Released] = []
    for precision in PRECISIONS:
        model = build_onnx(
            network,
            about.variant,
            precision=precision,
            opset=opset,
            training=checkpoint.training,
        )
        parity = check_parity(model, network, odd_inputs())
        parity += check_parity(model, network, extreme_inputs())
        if val_dir is not None:
            parity += check_parity(model, network, _pictures(val_dir, about.scale))
        path = output / f"{arch}_{precision}.onnx"
        files.append((path, model))
        released.append(Released(path, precision, parity))
    report = {
        "arch": arch,
        "scale": about.scale,
        "opset": opset,
        "models": [
            {
                "file": one.path.name,
                "precision": one.precision,
                "worst": asdict(one.worst),
                "parity": [asdict(parity) for parity in one.parity],
            }
            for one in released
        ],
    }
    text = json.dumps(report, indent=1).replace("Infinity", '"inf"') + "\n"
    for path, content in [*files, (output / f"{arch}_report.json", text.encode())]:
        write_atomic(path, content)
    return released


def _require_writable(output: Path) -> None:
    """Fail before minutes of work, not after."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to {output}: {error.strerror or error}") from error


def _pictures(folder: Path, scale: int) -> Iterator[tuple[str, FloatNCHW]]:
    from paragonsr2.pixels.files import read_picture
    from paragonsr2.pixels.formats import READABLE

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in READABLE)
    if not paths:
        raise InputError(f"there are no images in {folder}; check --val_dir")
    for path in paths:
        pixels = read_picture(path).pixels
        if pixels.dtype.name != "uint8" or pixels.shape[2] not in (1, 3):
            raise ExportError(f"{path} is not 8-bit grey or RGB; take it out of --val_dir")
        rgb = pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels
        yield path.name, to_float(shrink(crop_to_multiple(rgb.astype("uint8"), scale), scale))
