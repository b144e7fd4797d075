"""Models between two models: the dial from faithful to crisp.

Networks that share their start can be mixed weight by weight, and the mixture is a network as fast
as either. Source: Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks",
2018 (network interpolation).
"""

from __future__ import annotations

from dataclasses import dataclass

from paragonsr2.errors import WeightsError
from paragonsr2.files import sha256
from paragonsr2.weights.catalogue import ModelFile


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
    import numpy as np
    import onnx
    from onnx import numpy_helper

    first, second = (onnx.load_model_from_string(content) for content in (faithful, crisp))
    steps = [
        [(node.op_type, tuple(node.input), tuple(node.output)) for node in model.graph.node]
        for model in (first, second)
    ]
    theirs = {tensor.name: tensor for tensor in first.graph.initializer}
    if steps[0] != steps[1] or set(theirs) != {one.name for one in second.graph.initializer}:
        raise WeightsError("these models are of different networks, so nothing lies between them")
    for tensor in second.graph.initializer:
        start, end = (numpy_helper.to_array(one) for one in (theirs[tensor.name], tensor))
        if start.shape != end.shape:
            raise WeightsError(f"{tensor.name} has two shapes: nothing lies between these models")
        if not np.issubdtype(end.dtype, np.floating):
            continue
        mixed = start.astype(np.float64) * (1 - strength) + end.astype(np.float64) * strength
        tensor.CopyFrom(numpy_helper.from_array(mixed.astype(end.dtype), tensor.name))
    return second.SerializeToString()
