"""Reading what a builder of engines needs to know about an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paragonsr2.errors import MissingExtraError, WeightsError
from paragonsr2.files import sha256
from paragonsr2.weights.graph_check import graph_scale, require_scale
from paragonsr2.weights.metadata import GraphPrecision, read_facts

# Operators whose second input holds the weights of a network.
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})


@dataclass(frozen=True)
class Graph:
    """An ONNX file with one image as input and one as output.

    Attributes:
        name: of the file.
        content: its bytes.
        sha256: of the bytes.
        precision: of its weights, whatever its name says.
        input, output: tensor names.
        metadata: of the file.
    """

    name: str
    content: bytes
    sha256: str
    precision: GraphPrecision
    input: str
    output: str
    metadata: dict[str, str]


def read_graph(path: Path, *, trusted: bool = False) -> Graph:
    """Read an ONNX file, after a limited process has examined it.

    Args:
        path: of a one-file model.
        trusted: read it without that examination, and without limits.

    Raises:
        MissingExtraError: the onnx package is not installed.
        WeightsError: the file is not a readable one-file model with one input and one output, its
            weights are neither float32 nor float16, it does what it must not, or says of itself
            what cannot be.
        BackendError: it does not enlarge an RGB image.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name}", "tensorrt") from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    found = None if trusted else graph_scale(content, path.name)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's errors have no public base
        raise WeightsError(
            f"{path.name} is not an ONNX model; export one: paragonsr2 export"
        ) from error
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise WeightsError(f"{path.name} keeps weights in other files; export it as one file")
    # Old files list their weights among the inputs.
    inputs = [value.name for value in graph.input if value.name not in stored]
    outputs = [value.name for value in graph.output]
    if len(inputs) != 1 or len(outputs) != 1:
        raise WeightsError(
            f"{path.name} has {len(inputs)} inputs and {len(outputs)} outputs; "
            f"an enlarging network has one of each"
        )
    for node in graph.node:
        if node.op_type == "Constant":
            stored.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    types = {
        stored[node.input[1]].data_type
        for node in graph.node
        if node.op_type in _WEIGHTED and len(node.input) > 1 and node.input[1] in stored
    }
    if not types or types - {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}:
        named = {number: name for name, number in onnx.TensorProto.DataType.items()}
        kinds = ", ".join(sorted(named.get(kind, str(kind)) for kind in types))
        raise WeightsError(
            f"{path.name} has weights of type {kinds or 'unknown'}; "
            f"engines are built from float32 or float16"
        )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    require_scale(read_facts(metadata, path.name).scale, found, path.name)
    return Graph(
        name=path.name,
        content=content,
        sha256=sha256(content),
        # An fp16 graph has float32 islands; an fp32 graph has no float16 weights.
        precision="fp16" if onnx.TensorProto.FLOAT16 in types else "fp32",
        input=inputs[0],
        output=outputs[0],
        metadata=metadata,
    )
