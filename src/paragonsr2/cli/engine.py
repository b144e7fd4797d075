"""``paragonsr2 engine``: an ONNX file to a TensorRT engine, checked by reading it back."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paragonsr2.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from paragonsr2.export.graph import Graph
    from paragonsr2.tensorrt.building import Order
    from paragonsr2.tensorrt.engine_files import Gpu


class EnginePrecisionChoice(enum.StrEnum):
    """Number formats of an engine."""

    fp32 = "fp32"
    fp16 = "fp16"


class MajorChoice(enum.StrEnum):
    """Generations of TensorRT."""

    ten = "10"
    eleven = "11"


def engine(
    model: Annotated[Path, typer.Argument(help="An ONNX file, *_fp32.onnx or *_fp16.onnx.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="An .engine file, or a folder to keep many in.")
    ],
    precision: Annotated[
        EnginePrecisionChoice | None, typer.Option(help="Default: that of the ONNX file.")
    ] = None,
    smallest: Annotated[str, typer.Option("--min", help="Smallest input, HEIGHTxWIDTH.")] = "16x16",
    best: Annotated[
        str, typer.Option("--opt", help="Input to be fastest at, HEIGHTxWIDTH.")
    ] = "720x1280",
    largest: Annotated[
        str, typer.Option("--max", help="Largest input, HEIGHTxWIDTH.")
    ] = "1080x1920",
    workspace: Annotated[float, typer.Option(help="Scratch memory on the GPU, in GiB.")] = 4.0,
    timing_cache: Annotated[
        Path | None, typer.Option(help="Default: tensorrt.timing beside the engine.")
    ] = None,
    print_trtexec: Annotated[
        bool,
        typer.Option("--print-trtexec", help="Only print the trtexec line; needs no TensorRT."),
    ] = False,
    trt_major: Annotated[
        MajorChoice | None,
        typer.Option(help="TensorRT to print the line for; default: the installed one, or 11."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build also if it is there.")] = False,
) -> None:
    """Build a TensorRT engine for this GPU; one that is there and fits is kept."""
    from paragonsr2.export.graph import read_graph
    from paragonsr2.tensorrt.building import (
        STRONG_MAJOR,
        TIMING_CACHE,
        Order,
        engine_path,
        identify,
        trtexec_line,
        workspace_bytes,
    )
    from paragonsr2.tensorrt.engine_files import Profile, find_gpu, load_tensorrt, parse_size

    profile = Profile(
        parse_size("--min", smallest), parse_size("--opt", best), parse_size("--max", largest)
    )
    scratch = workspace_bytes(workspace)
    path = engine_path(output, model)
    if trt_major is not None and not print_trtexec:
        raise UsageError("--trt-major is for --print-trtexec; an engine is for what is installed")

    if print_trtexec:
        graph = read_graph(model)
        wanted = precision.value if precision else graph.precision
        cache = timing_cache or path.with_name(TIMING_CACHE)
        order = Order(model, path, profile, wanted, scratch, cache)
        major = int(trt_major.value) if trt_major else _installed_major(STRONG_MAJOR)
        print(trtexec_line(major, graph, order))
        return

    trt = load_tensorrt()
    _, gpu = find_gpu()
    graph = read_graph(model)
    wanted = precision.value if precision else graph.precision
    path = engine_path(output, model, identify(trt, gpu, graph, profile, wanted).key)
    cache = timing_cache or path.with_name(TIMING_CACHE)
    build_or_keep(trt, gpu, graph, Order(model, path, profile, wanted, scratch, cache), force=force)


def build_or_keep(trt: Any, gpu: Gpu, graph: Graph, order: Order, *, force: bool) -> None:
    """Build an engine unless it is there and fits, and print what it is and where.

    Args:
        trt: the tensorrt module.
        gpu: that it is for.
        graph: of the ordered model.
        order: what to build.
        force: build anyway, in the place of whatever is there.

    Raises:
        BackendError: there is an engine for something else.
        EnvironmentProblem: it cannot be built.
    """
    from paragonsr2.tensorrt.building import (
        build_engine,
        existing_engine,
        identify,
        major_version,
        trtexec_line,
    )

    line = trtexec_line(major_version(trt), graph, order)
    identity = identify(trt, gpu, graph, order.profile, order.precision)
    description = None if force else existing_engine(order, identity)
    if description is None:
        print(f"building, which takes minutes; the same as: {line}", file=sys.stderr)
        description = build_engine(trt, gpu, graph, order)
    else:
        print(f"{order.output} is there and fits; --force builds it anew", file=sys.stderr)
    layers = ", ".join(f"{number} {kind}" for kind, number in description.layers.items())
    tensors = ", ".join(f"{name} {kind}" for name, kind in description.types.items())
    print(f"x{description.scale}  layers: {layers}  tensors: {tensors}")
    print(order.output)


def _installed_major(otherwise: int) -> int:
    from paragonsr2.tensorrt.building import major_version
    from paragonsr2.tensorrt.engine_files import load_tensorrt

    try:
        return major_version(load_tensorrt())
    except EnvironmentProblem:
        return otherwise
