"""Proof that an exported model is the network it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnxruntime as ort
import torch

from paragonsr2.errors import ExportError
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.pixels.arrays import FloatNCHW

#: Height and width of the pictures that parity is checked on: odd, tiny, and past a window.
ODD_SIZES = ((1, 1), (7, 5), (33, 17), (47, 65), (3, 91))
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """Largest absolute difference at one size."""

    height: int
    width: int
    max_error: float


def check_parity(
    model: bytes, network: ParagonSR2, sizes: Sequence[tuple[int, int]] = ODD_SIZES
) -> list[Parity]:
    """Run ``model`` in ONNX Runtime beside ``network`` in PyTorch on noise.

    Args:
        model: a serialised ONNX model.
        network: what it was made from, on the CPU in float32.
        sizes: height and width of each input.

    Returns:
        One entry per size.

    Raises:
        ExportError: the model does not run, or differs by more than 1e-4 anywhere.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        raise ExportError(f"ONNX Runtime refuses the exported model: {error}") from error
    rng = np.random.default_rng(0)
    found: list[Parity] = []
    for height, width in sizes:
        x = rng.random((2, 3, height, width), dtype=np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(x)).numpy()
        result = cast(FloatNCHW, session.run(None, {"input": x})[0])
        if result.shape != expected.shape:
            raise ExportError(f"{width}x{height}: shape {result.shape}, not {expected.shape}")
        error = float(np.abs(result - expected).max())
        # Not "error > TOLERANCE": NaN must fail too.
        if not error <= TOLERANCE:
            raise ExportError(
                f"the exported model differs from PyTorch by {error:.2g} at {width}x{height}, "
                f"more than {TOLERANCE:g}; nothing was written"
            )
        found.append(Parity(height, width, error))
    return found
