"""Model repositories for NVIDIA Triton Inference Server.

A repository is a folder of models. Each model has a ``config.pbtxt`` and one folder per version::

    REPOSITORY/paragonsr2_realtime_x2/config.pbtxt
    REPOSITORY/paragonsr2_realtime_x2/1/model.onnx

Source: Triton's documentation, "Model Repository" and "Model Configuration".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from paragonsr2.errors import OptionError, OutputError
from paragonsr2.files import write_atomic
from paragonsr2.weights.metadata import GraphPrecision

#: File that a backend loads, by backend.
MODEL_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,120}")
_TYPES = {"fp32": "TYPE_FP32", "fp16": "TYPE_FP16"}


@dataclass(frozen=True)
class TritonModel:
    """What a model repository says about one model.

    Attributes:
        name: folder of the model, and its name in requests.
        backend: what runs the file.
        precision: number format of its input and output.
        input, output: names of its tensors.
        max_batch: most pictures that are run together; they must have equal sizes.
        delay: microseconds that a request waits for others to join it.
        gpu: run on GPUs instead of CPUs.
    """

    name: str
    backend: Literal["onnxruntime", "tensorrt"]
    precision: GraphPrecision
    input: str = "input"
    output: str = "output"
    max_batch: int = 8
    delay: int = 2000
    gpu: bool = False

    def config(self) -> str:
        """The text of ``config.pbtxt``."""
        kind = _TYPES[self.precision]
        place = "KIND_GPU" if self.gpu else "KIND_CPU"
        return f"""name: "{self.name}"
backend: "{self.backend}"
max_batch_size: {self.max_batch}
input [ {{ name: "{self.input}" data_type: {kind} dims: [ 3, -1, -1 ] }} ]
output [ {{ name: "{self.output}" data_type: {kind} dims: [ 3, -1, -1 ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: {self.delay} }}
instance_group [ {{ count: 1 kind: {place} }} ]
version_policy {{ latest {{ num_versions: 1 }} }}
"""


def write_repository(repository: Path, model: TritonModel, content: bytes) -> Path:
    """Add a model to a repository as its newest version.

    Triton serves a version as soon as it sees its folder, so the model file comes last.

    Args:
        repository: folder of the repository; it is created if it does not exist.
        model: what to say about the model.
        content: the ONNX file or the TensorRT engine.

    Returns:
        Path of the written model file.

    Raises:
        OptionError: the name cannot be a folder, or the batch size is below 1.
        OutputError: the repository cannot be written.
    """
    if not _NAME.fullmatch(model.name) or model.max_batch < 1:
        raise OptionError(
            f"a Triton model needs a name of letters, digits, '_', '.' and '-' and a batch size "
            f"from 1, not '{model.name}' and {model.max_batch}"
        )
    folder = repository / model.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(one.name) for one in folder.iterdir() if one.name.isdecimal()]
        write_atomic(folder / "config.pbtxt", model.config().encode())
        path = folder / str(max(numbers, default=0) + 1) / MODEL_FILES[model.backend]
        path.parent.mkdir()
    except OSError as error:
        raise OutputError(f"cannot write {repository}: {error.strerror or error}") from error
    write_atomic(path, content)
    return path
