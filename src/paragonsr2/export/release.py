"""Exporting a checkpoint to checked ONNX files and a report: all of them, or none."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from paragonsr2.arrays.convert import to_float
from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.errors import ExportError, InputError, OutputError
from paragonsr2.export.graph_writing import OPSET, build_onnx
from paragonsr2.export.parity import Parity, check_parities, extreme_inputs, odd_inputs
from paragonsr2.files import atomic_path
from paragonsr2.measure.quality import crop_to_multiple, shrink
from paragonsr2.variants import ARCH_PREFIX
from paragonsr2.weights.metadata import ExportPrecision
from paragonsr2.weights.store import Checkpoint

PRECISIONS: tuple[ExportPrecision, ...] = ("fp32", "fp16")
#: Of a network that is trained for INT8.
INT8_PRECISIONS: tuple[ExportPrecision, ...] = ("int8",)


@dataclass(frozen=True)
class Released:
    """One written model and its proof.

    Attributes:
        path: the file.
        precision: of its graph.
        parity: one entry per input.
    """

    path: Path
    precision: ExportPrecision
    parity: list[Parity]

    @property
    def worst(self) -> Parity:
        """The input on which the model is farthest from PyTorch."""
        return min(self.parity, key=lambda p: p.psnr)


def release_onnx(
    checkpoint: Checkpoint, output: Path, *, val_dir: Path | None = None, opset: int = OPSET
) -> list[Released]:
    """Export FP32 and FP16, check both against PyTorch, then write them with a JSON report.

    A network trained for INT8 is exported as INT8 alone. The files replace those of an earlier
    export together. If anything fails, the earlier files stay as they were.

    Args:
        checkpoint: trained or deployed.
        output: folder for ``<arch>_fp32.onnx`` and ``<arch>_fp16.onnx``, or ``<arch>_int8.onnx``,
            and ``<arch>_report.json``.
        val_dir: folder of pictures to check with as well, shrunk by the scale.
        opset: 18 or 20.

    Raises:
        UsageError: the opset is not supported.
        ExportError: a model differs from the network.
        InputError: ``val_dir`` holds no readable pictures.
        OutputError: the folder cannot be written.
    """
    _require_writable(output)
    paths = [] if val_dir is None else _picture_paths(val_dir)
    network, about = checkpoint.network, checkpoint.description
    arch = ARCH_PREFIX + about.variant
    precisions = INT8_PRECISIONS if about.int8 else PRECISIONS
    models = [
        build_onnx(
            network,
            about.variant,
            precision=precision,
            opset=opset,
            training=checkpoint.training,
        )
        for precision in precisions
    ]
    inputs = chain(odd_inputs(), extreme_inputs(), _pictures(paths, about.scale))
    parities = check_parities(models, network, inputs)
    released = [
        Released(output / f"{arch}_{precision}.onnx", precision, parity)
        for precision, parity in zip(precisions, parities, strict=True)
    ]
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
    contents = [*models, text.encode()]
    targets = [*(one.path for one in released), output / f"{arch}_report.json"]
    with contextlib.ExitStack() as stack:
        # All are written before the first takes its place: a disk that fills leaves the old ones.
        parts = [stack.enter_context(atomic_path(path)) for path in targets]
        for path, part, content in zip(targets, parts, contents, strict=True):
            if path.is_dir():
                raise OutputError(f"cannot write {path}: it is a folder")
            part.write_bytes(content)
    return released


def _require_writable(output: Path) -> None:
    """Fail before the work, which takes minutes, and not after it."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to {output}: {error.strerror or error}") from error


def _picture_paths(folder: Path) -> list[Path]:
    from paragonsr2.images.formats import READABLE

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in READABLE)
    if not paths:
        raise InputError(f"there are no images in {folder}; give another --val_dir")
    return paths


def _pictures(paths: Iterable[Path], scale: int) -> Iterator[tuple[str, FloatNCHW]]:
    from paragonsr2.images.reading import read_picture

    for path in paths:
        pixels = read_picture(path).pixels
        if pixels.dtype.name != "uint8" or pixels.shape[2] not in (1, 3):
            raise ExportError(f"{path} is not 8-bit grey or RGB; remove it from --val_dir")
        rgb = pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels
        yield path.name, to_float(shrink(crop_to_multiple(rgb.astype("uint8"), scale), scale))
