"""Models between two models: the dial from faithful to crisp.

Networks that share their start can be mixed weight by weight, and the mixture is a network as fast
as either. Source: Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks",
2018 (network interpolation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paragonsr2.errors import WeightsError
from paragonsr2.files import sha256
from paragonsr2.weights.catalogue import ModelFile

Tensor = Any  # numpy.ndarray, which is not imported with the package

_KERNEL, _VERTICAL, _HORIZONTAL = "base.kernel", "base.vertical", "base.horizontal"


@dataclass(frozen=True)
class BlendedFile(ModelFile):
    """An ONNX file with a share of another's weights, made when it is read.

    Attributes:
        faithful: the file at strength 0; the file itself is strength 1.
        strength: 0..1.
    """

    faithful: ModelFile | None = None
    strength: float = 1.0

    def read(self) -> bytes:
        """The blended model.

        Raises:
            WeightsError: a file is missing or changed, or they are of different networks.
        """
        own = super().read()
        return own if self.faithful is None else blend(self.faithful.read(), own, self.strength)

    @property
    def digest(self) -> str:
        """What distinguishes this blend from others."""
        parts = ("" if self.faithful is None else self.faithful.digest, super().digest)
        return sha256(f"{' '.join(parts)} {self.strength:g}".encode())


def blend(faithful: bytes, crisp: bytes, strength: float) -> bytes:
    """Mix two ONNX models of the same network.

    Args:
        faithful: the model at strength 0.
        crisp: the model at strength 1.
        strength: 0..1.

    Raises:
        WeightsError: they are of different networks.
    """
    import onnx
    from onnx import numpy_helper

    if strength in (0.0, 1.0):
        return crisp if strength else faithful
    models = [onnx.load_model_from_string(content) for content in (faithful, crisp)]
    start, end = (
        {
            one.name: array
            for one in model.graph.initializer
            if (array := numpy_helper.to_array(one)).dtype.kind == "f"
        }
        for model in models
    )
    start = _with_base_like(start, end)
    shapes = [{name: tensor.shape for name, tensor in one.items()} for one in (start, end)]
    if shapes[0] != shapes[1]:
        raise WeightsError("these models are of different networks, so nothing lies between them")
    for tensor in models[1].graph.initializer:
        if (to := end.get(tensor.name)) is not None:
            mixed = (1 - strength) * start[tensor.name].astype("f8") + strength * to.astype("f8")
            tensor.CopyFrom(numpy_helper.from_array(mixed.astype(to.dtype), tensor.name))
    return models[1].SerializeToString()


def _with_base_like(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` with its base path written in two passes if that of ``like`` is.

    The Magic Kernel has three taps at alpha 0 and is then deployed as one kernel; a kernel with
    more taps is deployed as a column and a row. Each row of taps sums to 1, so that the sums of the
    one kernel are its column and its row.
    """
    import numpy as np

    found = dict(tensors)
    if _KERNEL not in found or _VERTICAL not in like:
        return found
    kernel, column, row = found.pop(_KERNEL), like[_VERTICAL], like[_HORIZONTAL]
    scale = len(row) // len(column)
    more = (column.shape[2] - kernel.shape[2]) // 2
    vertical = kernel[::scale].sum(axis=3, keepdims=True)
    horizontal = kernel[:scale].sum(axis=2, keepdims=True)
    none = (0, 0)
    found[_VERTICAL] = np.pad(vertical, (none, none, (more, more), none))
    found[_HORIZONTAL] = np.pad(
        np.tile(horizontal, (len(column), 1, 1, 1)), (none, none, none, (more, more))
    )
    return found
