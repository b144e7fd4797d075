"""``paragonsr2 engine``: build a TensorRT engine from an ONNX file and check it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from paragonsr2.cli.options import TrustOption
from paragonsr2.errors import EnvironmentProblem, UsageError
from paragonsr2.weights.metadata import GraphPrecision

if TYPE_CHECKING:
    from paragonsr2.export.graph_reading import Graph
    from paragonsr2.tensorrt.building import Order
    from paragonsr2.tensorrt.engine_files import Gpu


def engine(
    model: Annotated[Path, typer.Argument(help="An ONNX file, *_fp32.onnx or *_fp16.onnx.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="An .engine file, or a folder for several.")
    ],
    precision: Annotated[
        GraphPrecision | None, typer.Option(help="Default: the precision of the ONNX file.")
    ] = None,
    smallest: Annotated[str, typer.Option("--min", help="Smallest input, WIDTHxHEIGHT.")] = "16x16",
    best: Annotated[
        str, typer.Option("--opt", help="Input size to tune for, WIDTHxHEIGHT.")
    ] = "1280x720",
    largest: Annotated[
        str, typer.Option("--max", help="Largest input, WIDTHxHEIGHT.")
    ] = "1920x1080",
    workspace: Annotated[float, typer.Option(help="Scratch memory on the GPU, in GiB.")] = 4.0,
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="Kernel timings. Default: tensorrt.timing beside the engine."),
    ] = None,
    print_trtexec: Annotated[
        bool,
        typer.Option("--print-trtexec", help="Only print the trtexec command; needs no TensorRT."),
    ] = False,
    trt_major: Annotated[
        Literal["10", "11"] | None,
        typer.Option(help="TensorRT version of that command. Default: the installed one, or 11."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Rebuild an engine that exists.")] = False,
    trust_model: TrustOption = False,
) -> None:
    """Build a TensorRT engine for this GPU; an existing engine that fits is kept.

    Sizes are WIDTHxHEIGHT in pixels, such as 1920x1080.
    """
    from paragonsr2.export.graph_reading import read_graph
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
        raise UsageError(
            "--trt-major needs --print-trtexec; engines are built with the installed TensorRT"
        )

    if print_trtexec:
        graph = read_graph(model, trusted=trust_model)
        wanted = precision or graph.precision
        cache = timing_cache or path.with_name(TIMING_CACHE)
        order = Order(model, path, profile, wanted, scratch, cache)
        major = int(trt_major) if trt_major else _installed_major(STRONG_MAJOR)
        print(trtexec_line(major, graph, order))
        return

    trt = load_tensorrt()
    _, gpu = find_gpu()
    graph = read_graph(model, trusted=trust_model)
    wanted = precision or graph.precision
    path = engine_path(output, model, identify(trt, gpu, graph, profile, wanted).key)
    cache = timing_cache or path.with_name(TIMING_CACHE)
    build_or_keep(trt, gpu, graph, Order(model, path, profile, wanted, scratch, cache), force=force)


def build_or_keep(trt: Any, gpu: Gpu, graph: Graph, order: Order, *, force: bool) -> None:
    """Build an engine unless one exists that fits, and print what it is and where.

    Args:
        trt: the tensorrt module.
        gpu: the GPU to build for.
        graph: of the ordered model.
        order: what to build.
        force: build anyway and replace what exists.

    Raises:
        BackendError: the existing engine was built for something else.
        EnvironmentProblem: the engine cannot be built.
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
        print(f"building, which takes minutes; equivalent to: {line}", file=sys.stderr)
        description = build_engine(trt, gpu, graph, order)
    else:
        print(f"{order.output} exists and fits; --force rebuilds it", file=sys.stderr)
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
