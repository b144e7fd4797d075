"""Writing the deployed network as one dynamic ONNX graph with its own description.

There are three precisions: FP32; strongly typed FP16, in which weights, activations, input and
output are float16 and only norms and softmax are float32, the form that every engine takes and
TensorRT 11's only way to FP16; and INT8, for networks that are trained for it, with QuantizeLinear
and DequantizeLinear around the weights and inputs of the convolutions that round.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from paragonsr2.errors import ExportError, UsageError
from paragonsr2.measure.cost import network_cost
from paragonsr2.network.blocks import join_narrow_halves
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.network.int8 import Int8Conv, int8_convs, is_int8, set_rounding
from paragonsr2.weights.metadata import ExportPrecision, TileNeeds
from paragonsr2.weights.store import describe

OPSET = 18
#: 17 is not made: see docs/decisions/0009-own-code-and-libraries.md.
OPSETS = (18, 20)

# Neither square nor a multiple of anything, so that no size becomes a constant of the graph.
_EXAMPLE = (2, 3, 37, 53)

# What stands for zero where inputs are rounded to unsigned numbers.
_ZERO = 128


def build_onnx(
    network: ParagonSR2,
    variant: str,
    *,
    precision: ExportPrecision = "fp32",
    opset: int = OPSET,
    training: Mapping[str, object] | None = None,
) -> bytes:
    """Collapse, trace and describe a network.

    Input ``input`` and output ``output`` are NCHW RGB 0..1, any batch, height and width.

    Args:
        network: trained or deployed, float32 on the CPU; it is not changed.
        variant: short or full name.
        precision: of the graph.
        opset: 18 or 20.
        training: summary of the training, for the metadata.

    Returns:
        A serialised model that the ONNX checker accepts, without external data.

    Raises:
        UsageError: the opset is not supported.
        ExportError: the exporter or the checker failed, or the network is trained for INT8 and
            another precision was asked for, or the other way round.
    """
    if (precision == "int8") != is_int8(network):
        raise ExportError(
            "this network is trained for INT8 and exports as INT8 only" if is_int8(network)
            else "only a network trained with network.int8 exports as INT8"
        )  # fmt: skip
    if opset not in OPSETS:
        raise UsageError(f"opset {opset} is not supported; choose {' or '.join(map(str, OPSETS))}")
    deployed = network if network.is_collapsed else network.collapse()
    about = _metadata(deployed, variant, training or {})
    traced = deepcopy(deployed)
    if precision == "fp16":
        traced = traced.half()
    if precision == "fp32":  # the form for CPUs
        join_narrow_halves(traced)
    set_rounding(traced, on=False)
    model = _trace(traced, opset)
    if precision == "fp16":
        _float32_softmax(model)
    if precision == "int8":
        _quantise(model, deployed)
    _strip(model)
    helper.set_model_props(model, {**about, "precision": precision})
    content = model.SerializeToString()
    try:
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:  # the checker raises several unrelated types
        raise ExportError(f"the ONNX checker refuses the exported model: {error}") from error
    return content


def _trace(network: ParagonSR2, opset: int) -> onnx.ModelProto:
    dtype = next(network.parameters()).dtype
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (torch.rand(_EXAMPLE, dtype=dtype),),
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many unrelated types
        raise ExportError(f"PyTorch cannot export this network: {error}") from error
    finally:
        chatter.setLevel(level)
    if program is None:
        raise ExportError("PyTorch returned no program")
    return program.model_proto


def _metadata(network: ParagonSR2, variant: str, training: Mapping[str, object]) -> dict[str, str]:
    cost = network_cost(network)
    needs = TileNeeds(network.tile_halo, network.tile_multiple, network.floats_per_pixel)
    return {
        **describe(network, variant).metadata(),
        **needs.metadata(),
        "parameters": str(cost.parameters),
        "kmacs_per_pixel": f"{cost.kmacs_per_pixel:.2f}",
        "training": json.dumps(dict(training), sort_keys=True),
    }


def _strip(model: onnx.ModelProto) -> None:
    """Remove the source lines of the exporting program, which are of no use to others."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.doc_string = ""


def _float32_softmax(model: onnx.ModelProto) -> None:
    """Compute every softmax in float32: sums of 256 terms lose too much in float16."""
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Softmax":
            nodes.append(node)
            continue
        (source,), (target,) = node.input, node.output
        node.input[0], node.output[0] = f"{target}_in_fp32", f"{target}_in_fp32_done"
        nodes += [
            helper.make_node("Cast", [source], [node.input[0]], to=TensorProto.FLOAT),
            node,
            helper.make_node("Cast", [node.output[0]], [target], to=TensorProto.FLOAT16),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@torch.no_grad()
def _quantise(model: onnx.ModelProto, network: ParagonSR2) -> None:
    """Round the inputs and weights of an INT8 network's convolutions in the graph, too.

    Inputs become unsigned with 128 for zero, which ONNX Runtime multiplies faster; the numbers are
    those of the training, -127 to 127 times a step.

    Raises:
        ExportError: the exporter has renamed a weight.
    """
    graph = model.graph
    convs = {node.input[1]: node for node in graph.node if node.op_type == "Conv"}
    rounded: dict[str, Int8Conv] = {f"{name}.weight": conv for name, conv in int8_convs(network)}
    if lacking := [weight for weight in rounded if weight not in convs]:
        raise ExportError(f"no convolution of the exported graph has the weights {lacking[0]}")
    replaced = {name for weight in rounded for name in convs[weight].input[1:]}
    kept = [one for one in graph.initializer if one.name not in replaced]
    made = [numpy_helper.from_array(np.array(_ZERO, np.uint8), "zero_of_inputs")]
    nodes: list[onnx.NodeProto] = []
    known: dict[tuple[str, float], str] = {}
    for node in graph.node:
        conv = rounded.get(node.input[1]) if node.op_type == "Conv" else None
        if conv is not None:
            source, weight, step = node.input[0], node.input[1], float(conv.input_step)
            if (source, step) not in known:
                known[source, step] = given = f"{weight}_input"
                made.append(numpy_helper.from_array(np.array(step, np.float32), f"{given}_step"))
                nodes += _rounding(source, given, f"{given}_step", "zero_of_inputs")
            node.input[0] = known[source, step]
            steps = conv.weight_steps.numpy()
            whole = np.rint(conv.weight.detach().numpy() / steps[:, None, None, None])
            made += [
                numpy_helper.from_array(whole.astype(np.int8), weight),
                numpy_helper.from_array(steps.astype(np.float32), f"{weight}_steps"),
                numpy_helper.from_array(np.zeros(len(steps), np.int8), f"{weight}_zeros"),
            ]
            if (bias := conv.rounded_bias()) is not None:
                made.append(numpy_helper.from_array(bias.numpy(), node.input[2]))
            read = [weight, f"{weight}_steps", f"{weight}_zeros"]
            nodes.append(helper.make_node("DequantizeLinear", read, [f"{weight}_float"], axis=0))
            node.input[1] = f"{weight}_float"
        nodes.append(node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *made])


def _rounding(source: str, target: str, step: str, zero: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, step, zero], [f"{target}_whole"]),
        helper.make_node("DequantizeLinear", [f"{target}_whole", step, zero], [target]),
    ]
