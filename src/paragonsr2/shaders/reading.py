"""Reading a program from an exported ONNX file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from paragonsr2.errors import ExportError, MissingExtraError, WeightsError
from paragonsr2.shaders.program import INPUT, Border, Convolution, Floats, Pass, Program


def read_program(content: bytes, name: str) -> Program:
    """Read the passes of a collapsed network from its float32 ONNX file.

    Networks made of convolutions, LeakyReLU and sums can be read, such as Realtime.

    Args:
        content: the bytes of the file.
        name: of the file, for messages.

    Raises:
        MissingExtraError: the onnx package is not installed.
        WeightsError: the file is not a valid ONNX model.
        ExportError: the network contains an operation that a pass cannot express.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError as error:
        raise MissingExtraError("writing a shader", "torch") from error
    try:
        graph = onnx.load_model_from_string(content).graph
        weights = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    except Exception as error:  # protobuf's errors have no public base
        raise WeightsError(f"{name} is not an ONNX model: {error}") from error
    reader = _Reader(name, weights, graph.input[0].name, graph.output[0].name)
    reader.uses.update(one for node in graph.node for one in node.input)
    for node in graph.node:
        reader.read(node.op_type, list(node.input), node.output[0], _attributes(node))
    return reader.program()


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


class _Reader:
    """Turns nodes into passes, one after the other.

    Args:
        name: of the file, for messages.
        weights: initialisers of the graph by name.
        picture: name of the graph's input.
        result: name of the graph's output.
    """

    def __init__(self, name: str, weights: dict[str, Floats], picture: str, result: str) -> None:
        self.name, self.weights, self.result = name, weights, result
        self.uses: Counter[str] = Counter()
        # Tensors that are no map of their own: the input padded, and maps side by side.
        self.maps: dict[str, tuple[str, ...]] = {picture: (INPUT,)}
        self.padded: set[str] = set()
        self.passes: dict[str, Pass] = {}
        self.scale = 0

    def read(self, kind: str, inputs: list[str], output: str, settings: dict[str, Any]) -> None:
        """Take in one node."""
        readers: dict[str, Callable[[list[str], str, dict[str, Any]], None]] = {
            "Pad": self._pad,
            "Conv": self._conv,
            "LeakyRelu": self._leaky,
            "Add": self._add,
            "Concat": self._concat,
            "DepthToSpace": self._shuffle,
        }
        if kind not in readers:
            raise self._refused(f"{kind} cannot be part of a shader")
        readers[kind](inputs, output, settings)

    def program(self) -> Program:
        """The finished program.

        Raises:
            ExportError: the network does not end in a PixelShuffle.
        """
        if not self.scale:
            raise self._refused("it does not end in a PixelShuffle")
        return Program(tuple(self.passes.values()), self.scale)

    def _refused(self, why: str) -> ExportError:
        return ExportError(
            f"{self.name} cannot become a shader: {why}; shaders are made of Realtime"
        )

    def _pad(self, inputs: list[str], output: str, settings: dict[str, Any]) -> None:
        if settings.get("mode") != b"edge" or self.maps.get(inputs[0]) != (INPUT,):
            raise self._refused("it pads something else than the edge of its input")
        self.maps[output] = (INPUT,)
        self.padded.add(output)

    def _conv(self, inputs: list[str], output: str, settings: dict[str, Any]) -> None:
        weight = np.asarray(self.weights[inputs[1]], np.float32)
        bias = self.weights[inputs[2]] if len(inputs) > 2 else np.zeros(len(weight))
        groups = int(settings.get("group", 1))
        down, across = settings.get("dilations", [1, 1])
        border: Border = "edge" if inputs[0] in self.padded else "zero"
        same = [weight.shape[2] // 2 * down, weight.shape[3] // 2 * across]
        expected = [0, 0, 0, 0] if border == "edge" else same * 2
        if list(settings.get("pads", [0, 0, 0, 0])) != expected:
            raise self._refused("a convolution changes the size")
        if any(step != 1 for step in settings.get("strides", [1, 1])):
            raise self._refused("a convolution has a stride")
        sources = self._maps_of(inputs[0])
        if groups > 1 and len(sources) > 1:
            raise self._refused("a grouped convolution reads several maps")
        parts: list[Convolution] = []
        first = 0
        for source in sources:
            size = weight.shape[1] if len(sources) == 1 else self._channels(source)
            part = weight[:, first : first + size]
            parts.append(Convolution(source, part, groups, (down, across), border))
            first += size
        self._make(Pass(output, tuple(parts), np.asarray(bias, np.float32)))

    def _leaky(self, inputs: list[str], output: str, settings: dict[str, Any]) -> None:
        made = self._last_use(inputs[0])
        if made.slope != 1.0 or made.added:
            raise self._refused("an activation follows something else than a convolution")
        self._make(replace(made, name=output, slope=float(settings.get("alpha", 0.01))))

    def _add(self, inputs: list[str], output: str, _: dict[str, Any]) -> None:
        left, right = inputs
        both = [self.passes.get(name) for name in inputs]
        linear = [
            one is not None and self.uses[one.name] == 1 and one.slope == 1.0 and not one.added
            for one in both
        ]
        if all(linear):
            first, second = self._last_use(left), self._last_use(right)
            sums = first.convolutions + second.convolutions
            self._make(Pass(output, sums, first.bias + second.bias))
            return
        # One of them is finished here; the other stays a map, and is added to it.
        order = list(self.passes)
        if left in order and (right not in order or order.index(left) > order.index(right)):
            left, right = right, left
        made = self._last_use(right)
        self._make(replace(made, name=output, added=(*made.added, *self._maps_of(left))))

    def _concat(self, inputs: list[str], output: str, settings: dict[str, Any]) -> None:
        if settings.get("axis") != 1:
            raise self._refused("it joins maps along another side than channels")
        self.maps[output] = tuple(name for one in inputs for name in self._maps_of(one))

    def _shuffle(self, inputs: list[str], output: str, settings: dict[str, Any]) -> None:
        if settings.get("mode") != b"CRD" or output != self.result:
            raise self._refused("its PixelShuffle is not the last step")
        self.scale = int(settings["blocksize"])
        if inputs[0] != next(reversed(self.passes), None):
            raise self._refused("its PixelShuffle does not follow a convolution")

    def _maps_of(self, tensor: str) -> tuple[str, ...]:
        if tensor in self.passes:
            return (tensor,)
        if tensor not in self.maps:
            raise self._refused(f"nothing makes {tensor}")
        return self.maps[tensor]

    def _channels(self, name: str) -> int:
        return 3 if name == INPUT else self.passes[name].channels

    def _last_use(self, tensor: str) -> Pass:
        """Take back the pass that makes ``tensor``, to make more of it."""
        if tensor not in self.passes or self.uses[tensor] != 1:
            raise self._refused(f"{tensor} is used twice where a pass makes one map")
        return self.passes.pop(tensor)

    def _make(self, made: Pass) -> None:
        self.passes[made.name] = made
