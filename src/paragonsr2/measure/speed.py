"""The clock: warm-up, rotating inputs, interleaved candidates, medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.process import without_telemetry


@dataclass(frozen=True)
class Timing:
    """Duration of one call, in seconds.

    Attributes:
        median: half of the calls were faster.
        p95: 95 % of the calls were faster.
        calls: number of timed calls.
    """

    median: float
    p95: float
    calls: int


def noise_inputs(height: int, width: int, *, count: int = 3, seed: int = 0) -> list[FloatNCHW]:
    """``count`` different inputs ``(1, 3, height, width)`` of uniform noise in 0..1."""
    rng = np.random.default_rng(seed)
    return [rng.random((1, 3, height, width), dtype=np.float32) for _ in range(count)]


def time_side_by_side(
    candidates: Mapping[str, Callable[[FloatNCHW], object]],
    height: int,
    width: int,
    *,
    calls: int | Mapping[str, int] = 15,
    warmup: int = 2,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Timing]:
    """Time several networks in turn on the same inputs.

    Taking turns exposes all of them to the same changes in the load of the machine.

    Args:
        candidates: by name, a function that runs the network on one input and returns when the
            work is done.
        height: of the input.
        width: of the input.
        calls: timed calls per candidate, or a number for each name. Candidates with fewer calls
            drop out of the later turns.
        warmup: untimed calls per candidate before them.
        seed: of the noise inputs.
        progress: receives a line before each turn.

    Returns:
        The timing of each candidate, by name.
    """
    seconds = seconds_side_by_side(
        candidates, height, width, calls=calls, warmup=warmup, seed=seed, progress=progress
    )
    return {name: timing_of(times) for name, times in seconds.items()}


def timing_of(seconds: Sequence[float]) -> Timing:
    """Sum up the durations of calls."""
    return Timing(float(np.median(seconds)), float(np.percentile(seconds, 95)), len(seconds))


def seconds_side_by_side(
    candidates: Mapping[str, Callable[[FloatNCHW], object]],
    height: int,
    width: int,
    *,
    calls: int | Mapping[str, int],
    warmup: int,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, list[float]]:
    """Do what :func:`time_side_by_side` does, and return the duration of every call."""
    inputs = noise_inputs(height, width, seed=seed)
    turns = {name: calls if isinstance(calls, int) else calls[name] for name in candidates}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    all_turns = warmup + max(turns.values(), default=0)
    for turn in range(all_turns):
        if progress is not None:
            progress(f"{width}x{height}: turn {turn + 1} of {all_turns}")
        for name, run in candidates.items():
            if turn >= warmup + turns[name]:
                continue
            x = inputs[turn % len(inputs)]
            started = time.perf_counter()
            run(x)
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def matrix_peak(side: int = 2048, calls: int = 6) -> float:
    """Peak of the machine: floating-point operations per second of a float32 matrix product.

    The best of ``calls`` in PyTorch and ONNX Runtime, both on PyTorch's number of threads. Two
    libraries, because some builds of PyTorch do not use the widest registers of some processors.
    """
    import torch
    from onnx import TensorProto, helper

    with without_telemetry():
        import onnxruntime

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(side, side, generator=generator) for _ in range(2))
    named = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (side, side)) for n in "abc"]
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "product", named[:2], named[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    inputs = {"a": a.numpy(), "b": b.numpy()}

    def by_onnxruntime() -> object:
        return session.run(None, inputs)

    products: tuple[Callable[[], object], ...] = (lambda: torch.mm(a, b), by_onnxruntime)
    seconds: list[float] = []
    for _ in range(calls):
        for product in products:
            started = time.perf_counter()
            product()
            seconds.append(time.perf_counter() - started)
    return 2.0 * side**3 / min(seconds)
