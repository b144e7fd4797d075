"""Writing the deployed network as one dynamic ONNX graph with its own description.

There are two precisions: FP32, and strongly typed FP16, in which weights, activations, input and
output are float16 and only norms and softmax are float32. Every engine takes that form, and
TensorRT 11 has no other way to FP16.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Mapping
from copy import deepcopy

import onnx
import torch
from onnx import TensorProto, helper

from paragonsr2.errors import ExportError, UsageError
from paragonsr2.measure.cost import network_cost
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.weights.metadata import GraphPrecision, TileNeeds
from paragonsr2.weights.store import describe

OPSET = 18
#: 17 is not made: see docs/decisions/0009-own-code-and-libraries.md.
OPSETS = (18, 20)

# Neither square nor a multiple of anything, so that no size becomes a constant of the graph.
_EXAMPLE = (2, 3, 37, 53)


def build_onnx(
    network: ParagonSR2,
    variant: str,
    *,
    precision: GraphPrecision = "fp32",
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
        ExportError: the exporter or the checker failed.
    """
    if opset not in OPSETS:
        raise UsageError(f"opset {opset} is not supported; choose {' or '.join(map(str, OPSETS))}")
    deployed = network if network.is_collapsed else network.collapse()
    about = _metadata(deployed, variant, training or {})
    model = _trace(deepcopy(deployed).half() if precision == "fp16" else deployed, opset)
    if precision == "fp16":
        _float32_softmax(model)
    _strip(model)
    helper.set_model_props(model, about)
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
