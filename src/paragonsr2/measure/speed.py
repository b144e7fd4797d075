"""Timing that can be believed: warm-up, rotating inputs, medians, candidates interleaved."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from paragonsr2.arrays.pixels import FloatNCHW


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        median: half of the calls were faster.
        p95: 95 % of the calls were faster.
        calls: how many were timed.
    """

    median: float
    p95: float
    calls: int


def noise_inputs(height: int, width: int, *, count: int = 3, seed: int = 0) -> list[FloatNCHW]:
    """Pictures ``(1, 3, height, width)`` of noise in 0..1, all different, none of them zero."""
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
    """Time several networks on the same inputs in turn, so that they share good and bad moments.

    Args:
        candidates: by name, what to call with an input; it must return when the work is done.
        height: of the input.
        width: of the input.
        calls: timed calls of each, or by name: slow ones may do with fewer, and are then left
            out of the later turns.
        warmup: calls of each before that.
        seed: of the inputs, which are noise and never zero.
        progress: told of every turn before it begins.

    Returns:
        By name, seconds.
    """
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
    return {
        name: Timing(float(np.median(times)), float(np.percentile(times, 95)), len(times))
        for name, times in seconds.items()
    }


def matrix_peak(side: int = 2048, calls: int = 6) -> float:
    """Floating-point operations a second of a large float32 matrix product: the machine's peak.

    The fastest of ``calls``, by PyTorch and by ONNX Runtime on as many threads as PyTorch is set
    to: some builds of PyTorch leave the widest registers of some processors alone.
    """
    import onnxruntime
    import torch
    from onnx import TensorProto, helper

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
