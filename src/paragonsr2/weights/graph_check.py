"""What a foreign ONNX graph does, found without running it: its scale, its operators, its sizes.

A graph can loop for ever, and a few bytes of it can ask for any amount of memory. So operators are
taken from a list, each stored tensor is measured against the file, and the sizes of all results
are inferred for two sizes of input.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from paragonsr2.errors import BackendError, WeightsError
from paragonsr2.weights.limited import TRUST, answer, run_limited, too_much_memory
from paragonsr2.weights.metadata import MODEL_SCALES

_NAMES = """
    Abs Add And ArgMax AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant
    ConstantOfShape Conv ConvInteger ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div
    DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization
    LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul MatMulInteger Max MaxPool Mean
    Min Mish Mod Mul Neg Not Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear Range
    Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin
    Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tanh Tile
    TopK Transpose Trilu Unsqueeze Upsample Where
"""

#: What networks for images are made of; no control flow, and nothing that draws random numbers.
OPERATORS = frozenset(_NAMES.split())

# Heights and widths that sizes are inferred for.
_TRIALS = ((32, 32), (256, 192))

#: Most numbers that one result may have for each pixel of the input.
_MOST_PER_PIXEL = 1 << 15


def graph_scale(content: bytes, label: str, *, trusted: bool = False) -> int:
    """The enlargement of a foreign ONNX model, which is examined in a limited process.

    Args:
        content: of a one-file model.
        label: name of the model, for messages.
        trusted: examine it in this process, take any operator, and do without limits.

    Raises:
        WeightsError: it is not ONNX, does what it must not, or exceeds a limit.
        BackendError: it does not enlarge an RGB image.
    """
    if trusted:
        return examine(content, label, trusted=True)
    return cast(int, run_limited(__name__, label, label=label, content=content))


def require_scale(stated: int | None, found: int | None, label: str) -> None:
    """Refuse a model whose metadata state another scale than its graph has; None is unknown.

    Raises:
        WeightsError: they differ.
    """
    if None not in (stated, found) and stated != found:
        raise WeightsError(f"{label} enlarges x{found}, and its metadata says x{stated}")


def examine(content: bytes, label: str, *, trusted: bool = False) -> int:
    """The same in this process, without limits of memory and time; see :func:`graph_scale`."""
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's errors have no public base
        raise WeightsError(f"{label} is not an ONNX model that can be read") from error
    if not model.graph.node:
        raise WeightsError(f"{label} is not an ONNX model: it has no operators")
    if not trusted:
        _check_operators(model, label)
        _check_tensors(model, label)
    _check_ends(model, label)
    shapes = [_infer(model, trial, label, trusted=trusted) for trial in _TRIALS]
    # The engine computes what is constant when it opens the model, and that can be large.
    session = None if trusted else _session(content, label)
    scales = {
        _scale(trial, shape or _run(session or _session(content, label), trial, label), label)
        for trial, shape in zip(_TRIALS, shapes, strict=True)
    }
    if len(scales) > 1:
        raise BackendError(f"{label} enlarges images of several sizes differently")
    return scales.pop()


def _check_operators(model: Any, label: str) -> None:
    used = {f"{node.domain}.{node.op_type}".removeprefix(".") for node in model.graph.node}
    refused = sorted(name for name in used if name.removeprefix("ai.onnx.") not in OPERATORS)
    if model.functions:
        refused.insert(0, "functions of its own")
    if refused:
        shown = ", ".join(name[:40] for name in refused[:4])
        raise WeightsError(f"{label} uses {shown}, which no network for images needs; {TRUST}")


def _stored(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_tensors(model: Any, label: str) -> None:
    """Refuse tensors whose size is not that of their bytes in the file."""
    import onnx

    sparse = any(
        attribute.HasField("sparse_tensor") or attribute.HasField("g") or attribute.graphs
        for node in model.graph.node
        for attribute in node.attribute
    )
    if sparse or model.graph.sparse_initializer:
        raise WeightsError(f"{label} holds sparse tensors or graphs inside its operators; {TRUST}")
    for tensor in _stored(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise WeightsError(f"{label} keeps weights in other files; export it as one file")
        claimed = math.prod(tensor.dims)
        there = tensor.ByteSize()
        # The smallest numbers have two bits.
        if min(tensor.dims, default=0) < 0 or claimed > 4 * there:
            raise WeightsError(
                f"{label}: its tensor {tensor.name[:40]!r} claims {claimed} numbers, and the file "
                f"holds {there} bytes of it; get the file again"
            )


def _check_ends(model: Any, label: str) -> None:
    """Refuse what does not take one RGB image and give one result."""
    import onnx

    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise BackendError(
            f"{label} has {len(inputs)} inputs and {len(model.graph.output)} outputs; an enlarging "
            "network has one of each"
        )
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
        raise BackendError(f"{label} takes no floating point images; export it with float32 input")
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    if len(dims) != 4 or dims[0] not in (None, 1) or dims[1] not in (None, 3):
        shown = "x".join("?" if dim is None else str(dim) for dim in dims)
        raise BackendError(f"{label} takes {shown or 'numbers'}, not one RGB image (1x3x?x?)")
    if dims[2:] != [None, None]:
        raise BackendError(
            f"{label} takes images of {dims[3]}x{dims[2]} alone; export it for any height and width"
        )


def _infer(
    model: Any, trial: tuple[int, int], label: str, *, trusted: bool
) -> tuple[int, ...] | None:
    """The shape of the result for an input of this size; None if it does not follow.

    Raises:
        WeightsError: a result on the way is too large.
    """
    from onnx.shape_inference import InferenceError, infer_shapes

    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    (given,) = (value for value in graph.input if value.name not in stored)
    for dim, size in zip(given.type.tensor_type.shape.dim, (1, 3, *trial), strict=True):
        dim.dim_value = size
    # What the file claims about its own results is not to be believed.
    del graph.value_info[:]
    graph.output[0].type.tensor_type.ClearField("shape")
    # Following the values of a Range would write all of them down.
    follow = all(node.op_type != "Range" for node in graph.node)
    try:
        inferred = infer_shapes(model, data_prop=follow).graph
    except (InferenceError, ValueError):
        return None
    shapes = {
        value.name: tuple(dim.dim_value for dim in kind.shape.dim)
        for value in (*inferred.value_info, *inferred.output)
        if (kind := value.type.tensor_type).HasField("shape")
        and all(dim.HasField("dim_value") for dim in kind.shape.dim)
    }
    if not trusted:
        most = _MOST_PER_PIXEL * math.prod(trial)
        for name, shape in shapes.items():
            if math.prod(shape) > most:
                raise WeightsError(
                    f"{label}: its result {name[:40]!r} has {math.prod(shape)} numbers for an "
                    f"image of {trial[1]}x{trial[0]}; {TRUST}"
                )
    made = {name for node in graph.node for name in node.output if name}
    return shapes[graph.output[0].name] if made <= shapes.keys() else None


def _session(content: bytes, label: str) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        reason = " ".join(str(error).split())
        if "bad_alloc" in reason or "allocate" in reason:
            raise WeightsError(too_much_memory(label)) from error
        raise WeightsError(
            f"{label} is not an ONNX model that ONNX Runtime can run: {reason[:160]}"
        ) from error


def _run(session: Any, trial: tuple[int, int], label: str) -> tuple[int, ...]:
    """The shape of the result, where it does not follow from the graph."""
    (given,) = session.get_inputs()
    kind = np.float16 if given.type == "tensor(float16)" else np.float32
    try:
        (result,) = session.run(None, {given.name: np.full((1, 3, *trial), 0.5, kind)})
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        reason = " ".join(str(error).split())
        raise BackendError(f"{label} does not run: {reason[:160]}") from error
    return np.shape(result)


def _scale(trial: tuple[int, int], shape: tuple[int, ...], label: str) -> int:
    height, width = trial
    scale = shape[-1] // width if shape else 0
    if shape != (1, 3, height * scale, width * scale) or scale not in MODEL_SCALES:
        shown = "x".join(map(str, shape)) or "one number"
        raise BackendError(
            f"{label} turns an image of 1x3x{height}x{width} into {shown}, so it does not enlarge "
            f"RGB images {MODEL_SCALES[0]} to {MODEL_SCALES[-1]} times"
        )
    return scale


if __name__ == "__main__":
    answer(lambda: examine(sys.stdin.buffer.read(), sys.argv[1]))
