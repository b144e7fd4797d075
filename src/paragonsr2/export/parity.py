"""Proof that an exported model computes what the network computes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch

from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.errors import ExportError
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.network.int8 import is_int8
from paragonsr2.process import without_telemetry

with without_telemetry():
    import onnxruntime as ort

#: Height and width of the pictures that parity is checked on: odd, tiny, and past a window.
ODD_SIZES = ((1, 1), (7, 5), (33, 17), (47, 65), (3, 91))

#: Largest absolute error of an FP32 model against PyTorch.
TOLERANCE = 1e-4

Kind = Literal["FP32", "FP16", "INT8"]

#: Least PSNR of a model against PyTorch in float32, decibel, peak 1. For INT8 PyTorch rounds as
#: well, but a number between two steps may fall to the other side, and the next layer's with it.
LEAST = {"FP16": 50.0, "INT8": 40.0}


@dataclass(frozen=True)
class Parity:
    """How close a model comes to the network on one input.

    Attributes:
        name: of the input.
        height, width: of the input.
        max_error: largest absolute difference.
        psnr: decibel, peak 1; inf if equal.
    """

    name: str
    height: int
    width: int
    max_error: float
    psnr: float


def odd_inputs(sizes: Sequence[tuple[int, int]] = ODD_SIZES) -> Iterator[tuple[str, FloatNCHW]]:
    """Noise of odd sizes, two pictures a batch."""
    rng = np.random.default_rng(0)
    for height, width in sizes:
        yield f"noise {width}x{height}", rng.random((2, 3, height, width), dtype=np.float32)


def extreme_inputs() -> Iterator[tuple[str, FloatNCHW]]:
    """Black, white, and a smooth picture with an edge: inputs that strain float16."""
    yield "black", np.zeros((1, 3, 64, 64), dtype=np.float32)
    yield "white", np.ones((1, 3, 64, 64), dtype=np.float32)
    y, x = np.mgrid[0:64, 0:64].astype(np.float32) / 64
    smooth = 0.5 + 0.3 * np.sin(9 * x) * np.cos(7 * y) + 0.2 * (x + y > 1)
    yield "smooth", np.broadcast_to(smooth, (1, 3, 64, 64)).astype(np.float32)


def open_session(model: bytes) -> ort.InferenceSession:
    """Open ``model`` in ONNX Runtime on the CPU.

    Raises:
        ExportError: ONNX Runtime refuses the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        raise ExportError(f"ONNX Runtime refuses the exported model: {error}") from error


def check_parity(
    model: bytes, network: ParagonSR2, inputs: Iterable[tuple[str, FloatNCHW]]
) -> list[Parity]:
    """Run ``model`` in ONNX Runtime beside ``network`` in PyTorch.

    Args:
        model: serialised, FP32 or FP16.
        network: the network it was exported from, on the CPU in float32.
        inputs: names and batches ``(B, 3, H, W)`` in 0..1.

    Returns:
        One entry per input.

    Raises:
        ExportError: the model does not run; gives another shape, NaN or Inf; or is too far from
            PyTorch: more than 1e-4 anywhere in FP32 (from PyTorch in float32 and in float64), less
            than 50 dB in FP16 or 40 dB in INT8.
    """
    (found,) = check_parities([model], network, inputs)
    return found


def check_parities(
    models: Sequence[bytes], network: ParagonSR2, inputs: Iterable[tuple[str, FloatNCHW]]
) -> list[list[Parity]]:
    """Like :func:`check_parity` for several models of one network, which runs once per input."""
    rounds = is_int8(network)
    sessions = [open_session(model) for model in models]
    found: list[list[Parity]] = [[] for _ in models]
    for name, x in inputs:
        expected = _run(network, x, torch.float32)
        for session, parities in zip(sessions, found, strict=True):
            kind = _kind(session, rounds=rounds)
            parity = _compare(session, name, x, expected)
            if kind == "FP32" and not _is_near(parity, kind):
                # A deep network strains float32 on noise: what PyTorch rounds adds to what ONNX
                # Runtime rounds. In float64 it rounds nothing.
                parity = _compare(session, name, x, _run(network, x, torch.float64))
            _require_near(parity, kind)
            parities.append(parity)
    return found


def _run(network: ParagonSR2, x: FloatNCHW, dtype: torch.dtype) -> npt.NDArray[np.floating]:
    used = network if dtype == torch.float32 else copy.deepcopy(network).to(dtype)
    with torch.inference_mode():
        return used(torch.from_numpy(x).to(dtype)).numpy()


def _kind(session: ort.InferenceSession, *, rounds: bool) -> Kind:
    if rounds:
        return "INT8"
    return "FP16" if session.get_inputs()[0].type == "tensor(float16)" else "FP32"


def _compare(
    session: ort.InferenceSession, name: str, x: FloatNCHW, expected: npt.NDArray[np.floating]
) -> Parity:
    half = session.get_inputs()[0].type == "tensor(float16)"
    given = x.astype(np.float16) if half else x
    result = cast(FloatNCHW, session.run(None, {"input": given})[0])
    if result.shape != expected.shape:
        raise ExportError(f"{name}: shape {result.shape}, not {expected.shape}")
    difference = result.astype(np.float64) - expected
    mse = float(np.mean(difference**2))
    psnr = math.inf if mse == 0.0 else -10.0 * math.log10(mse) if mse > 0.0 else math.nan
    return Parity(name, x.shape[2], x.shape[3], float(np.abs(difference).max()), psnr)


def _is_near(parity: Parity, kind: Kind) -> bool:
    # NaN is not near.
    return parity.max_error <= TOLERANCE if kind == "FP32" else parity.psnr >= LEAST[kind]


def _require_near(parity: Parity, kind: Kind) -> None:
    if not _is_near(parity, kind):
        limit = f"at most {TOLERANCE:g}" if kind == "FP32" else f"at least {LEAST[kind]:g} dB"
        raise ExportError(
            f"the {kind} model differs from PyTorch on {parity.name}: "
            f"{parity.max_error:.2g}, {parity.psnr:.1f} dB; it must be {limit}. Nothing was written"
        )
