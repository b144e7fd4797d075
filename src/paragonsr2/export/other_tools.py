"""Models in the formats of other tools: ncnn, player shaders, WebGPU and Triton."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from paragonsr2.errors import OptionError
from paragonsr2.export.graph_writing import build_onnx
from paragonsr2.export.triton import TritonModel, write_repository
from paragonsr2.files import write_atomic
from paragonsr2.shaders.glsl import write_glsl
from paragonsr2.shaders.reading import read_program
from paragonsr2.shaders.wgsl import write_wgsl
from paragonsr2.variants import ARCH_PREFIX
from paragonsr2.weights.source import ModelSource
from paragonsr2.weights.store import Checkpoint, load_checkpoint

#: Formats beside ONNX.
Format = Literal["ncnn", "glsl", "wgsl", "triton"]


def export_format(source: ModelSource, kind: Format, output: Path) -> list[Path]:
    """Write a model in another tool's format.

    Args:
        source: a bundled model or a checkpoint.
        kind: ``ncnn`` writes a ``.param`` and a ``.bin`` file, ``glsl`` an mpv user shader,
            ``wgsl`` a JSON document of WebGPU kernels, and ``triton`` adds a version to a model
            repository.
        output: folder; it is created if it does not exist.

    Returns:
        The written files.

    Raises:
        OptionError: the model has no checkpoint.
        WeightsError: the checkpoint cannot be used.
        ExportError: the network cannot be expressed in the format.
        MissingExtraError: the converter is not installed.
        OutputError: a file cannot be written.
    """
    if source.checkpoint is None:
        raise OptionError(
            f"{source.name} has no checkpoint; export a bundled model or a .safetensors file"
        )
    checkpoint = load_checkpoint(
        source.checkpoint.path, scale=source.scale, trusted=not source.checkpoint.needs_limits
    )
    name = _name(source, checkpoint)
    if kind == "ncnn":
        from paragonsr2.export.ncnn import build_ncnn

        return list(build_ncnn(checkpoint.network).write(output, name))
    content = build_onnx(checkpoint.network, checkpoint.description.variant)
    if kind == "triton":
        return [write_repository(output, TritonModel(name, "onnxruntime", "fp32"), content)]
    program = read_program(content, source.name)
    if kind == "glsl":
        path, text = output / f"{name}.glsl", write_glsl(program, name)
    else:
        path, text = output / f"{name}.wgsl.json", write_wgsl(program)
    write_atomic(path, text.encode())
    return [path]


def _name(source: ModelSource, checkpoint: Checkpoint) -> str:
    """File name without suffix; ncnn's clients read the scale from its end."""
    about = checkpoint.description
    kind = source.name.partition(":")[2] if source.graph is not None else ""
    middle = f"_{kind}" if kind else ""
    return f"{ARCH_PREFIX}{about.variant}{middle}_x{about.scale}"
