"""Export of the deployed network to one dynamic ONNX file with everything it says of itself."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from paragonsr2.errors import ExportError
from paragonsr2.export.parity import Parity, check_parity
from paragonsr2.files import write_atomic
from paragonsr2.measure.cost import network_cost
from paragonsr2.network.generator import ParagonSR2
from paragonsr2.variants import ARCH_PREFIX
from paragonsr2.weights.store import FORMAT, describe

OPSET = 18
# Neither square nor a multiple of anything, so that no size is taken for a constant.
_EXAMPLE = (2, 3, 37, 53)


@dataclass(frozen=True)
class Exported:
    """A written model.

    Attributes:
        path: the file.
        parity: how near it is to PyTorch, by size.
    """

    path: Path
    parity: list[Parity]


def export_onnx(
    network: ParagonSR2,
    variant: str,
    path: Path,
    *,
    opset: int = OPSET,
    training: Mapping[str, object] | None = None,
) -> Exported:
    """Collapse, export, check and write.

    Input ``input`` and output ``output`` are NCHW RGB 0..1, any batch, height and width.

    Args:
        network: any form; unchanged.
        variant: short or full name.
        path: ``*.onnx``.
        opset: of the file.
        training: digest for the metadata.

    Raises:
        ExportError: the exporter failed, or the model differs from the network.
        OutputError: the file cannot be written.
    """
    deployed = network if network.is_collapsed else network.collapse()
    model = _trace(deployed, opset)
    _describe(model, deployed, variant, training or {})
    content = model.SerializeToString()
    try:
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:  # the checker raises several unrelated types
        raise ExportError(f"the ONNX checker refuses the exported model: {error}") from error
    parity = check_parity(content, network)
    write_atomic(path, content)
    return Exported(path, parity)


def _trace(network: ParagonSR2, opset: int) -> onnx.ModelProto:
    shapes = {0: "batch", 2: "height", 3: "width"}
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (torch.rand(_EXAMPLE),),
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=(shapes,),
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


def _describe(
    model: onnx.ModelProto, network: ParagonSR2, variant: str, training: Mapping[str, Any]
) -> None:
    about = describe(network, variant)
    cost = network_cost(network)
    metadata = {
        "format": FORMAT,
        "arch": ARCH_PREFIX + about.variant,
        "variant": about.variant,
        "scale": str(about.scale),
        "upsampler_alpha": repr(about.upsampler_alpha),
        "window_size": str(about.window_size),
        "tile_halo": str(network.tile_halo),
        "tile_multiple": str(network.tile_multiple),
        "floats_per_pixel": str(network.floats_per_pixel),
        "parameters": str(cost.parameters),
        "kmacs_per_pixel": f"{cost.kmacs_per_pixel:.2f}",
        "training": json.dumps(dict(training), sort_keys=True),
    }
    # Where the exporter was run, line by line, is of no use to anyone who gets the file.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.doc_string = ""
    onnx.helper.set_model_props(model, metadata)
