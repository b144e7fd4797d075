"""Tensors of the Open Inference Protocol, as JSON and in binary.

A request is JSON, or JSON followed by the tensors' bytes; the header
``Inference-Header-Content-Length`` then says how many bytes are JSON. Answers are the same.

Source: Open Inference Protocol, "HTTP/REST", and its "Binary Tensor Data" extension.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from paragonsr2.arrays.pixels import FloatNCHW
from paragonsr2.errors import RefusedError
from paragonsr2.serve.limits import Limits

#: Header that says how many bytes of a body are JSON.
JSON_LENGTH = "Inference-Header-Content-Length"

INPUT, OUTPUT, DATATYPE = "input", "output", "FP32"
_BYTES = 4

#: Most characters of JSON that a float32 takes, with its comma.
_TEXT = 26

_DATA = "data is a list of finite numbers, flat or nested as its shape"


# Each list ends at its first wrong element, and nothing that is not asked for is kept: JSON can
# become objects of a hundred times its size.
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Row = Annotated[list[_Number], Field(min_length=1, fail_fast=True)]
_Rows = Annotated[list[_Row], Field(min_length=1, fail_fast=True)]
_Planes = Annotated[list[_Rows], Field(min_length=1, fail_fast=True)]
_Pictures = Annotated[list[_Planes], Field(min_length=1, fail_fast=True)]


class _TensorParameters(BaseModel):
    binary_data_size: int | None = None


class _OutputParameters(BaseModel):
    binary_data: bool | None = None
    classification: int = 0


class _RequestParameters(BaseModel):
    binary_data_output: bool = False


class _Tensor(BaseModel):
    name: str
    shape: list[int] = Field(max_length=8)
    datatype: str
    parameters: _TensorParameters = _TensorParameters()
    data: Annotated[_Row | _Pictures, Field(union_mode="left_to_right")] | None = None


class _Output(BaseModel):
    name: str
    parameters: _OutputParameters = _OutputParameters()


class _Request(BaseModel):
    id: str = Field("", max_length=200)
    parameters: _RequestParameters = _RequestParameters()
    inputs: list[_Tensor] = Field(min_length=1, max_length=1)
    outputs: list[_Output] = Field([], max_length=1)


@dataclass(frozen=True)
class TensorRequest:
    """A request for inference.

    Attributes:
        id: that the client gave, for the answer.
        pictures: ``(B, 3, H, W)`` float32, finite.
        binary: the answer's tensor is wanted in binary.
    """

    id: str
    pictures: FloatNCHW
    binary: bool


def read_request(path: Path, json_length: str | None, scale: int, limits: Limits) -> TensorRequest:
    """Read the body of a request.

    Args:
        path: the body.
        json_length: value of the header :data:`JSON_LENGTH`; None if there is none.
        scale: enlargement, for the limit of the result.
        limits: of the service.

    Raises:
        RefusedError: the body is not such a request (400), or too large (413).
    """
    size = path.stat().st_size
    head = _length(json_length, size)
    if head > limits.json_bytes:
        raise RefusedError(
            413, f"more than {limits.json_bytes / 1e6:g} MB of JSON; send the tensor in binary"
        )
    with path.open("rb") as file:
        request = _parse(file.read(head))
        tensor = request.inputs[0]
        shape = _shape(tensor, scale, limits)
        expected = int(np.prod(shape)) * _BYTES
        stated = tensor.parameters.binary_data_size
        if tensor.data is None:
            if stated != expected or size - head != expected:
                raise _wrong(
                    f"shape {shape} of {DATATYPE} takes {expected} bytes; binary_data_size says "
                    f"{str(stated)[:20]}, and {size - head} came"
                )
            values = _from_bytes(file)
        elif stated is not None or size != head:
            raise _wrong("a tensor has data or binary_data_size, not both")
        else:
            values = _from_json(tensor.data)
    if values.size * _BYTES != expected:
        raise _wrong(f"shape {shape} needs {expected // _BYTES} values, not {values.size}")
    if not np.isfinite(values).all():
        raise _wrong("the tensor contains NaN or infinity")
    return TensorRequest(request.id, values.reshape(shape), _is_binary(request))


def answer_head(
    request: TensorRequest, model: str, shape: tuple[int, ...], *, limits: Limits
) -> dict[str, Any]:
    """The JSON of an answer, without the data.

    Raises:
        RefusedError: the data are wanted as JSON, and are too many for it.
    """
    size = int(np.prod(shape)) * _BYTES
    if not request.binary and size // _BYTES * _TEXT > limits.json_bytes:
        raise RefusedError(413, "the result is too large for JSON; ask for binary_data")
    output: dict[str, Any] = {"name": OUTPUT, "datatype": DATATYPE, "shape": list(shape)}
    if request.binary:
        output["parameters"] = {"binary_data_size": size}
    return {"model_name": model, "model_version": "1", "id": request.id, "outputs": [output]}


def _length(json_length: str | None, size: int) -> int:
    if json_length is None:
        return size
    if not (json_length.isascii() and json_length.isdigit() and len(json_length) < 16):
        raise _wrong(f"{JSON_LENGTH} is not a number")
    if int(json_length) > size:
        raise _wrong(f"{JSON_LENGTH} is {json_length}, and the body has {size} bytes")
    return int(json_length)


def _parse(text: bytes) -> _Request:
    try:
        return _Request.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        if "data" in first["loc"]:
            raise _wrong(_DATA) from None
        place = ".".join(str(part)[:40] for part in first["loc"])
        raise _wrong(f"{place or 'the JSON'}: {first['msg'][:200]}") from None


def _shape(tensor: _Tensor, scale: int, limits: Limits) -> tuple[int, int, int, int]:
    if tensor.name != INPUT or tensor.datatype != DATATYPE:
        raise _wrong(f"the one input is '{INPUT}' of {DATATYPE}, shape (B, 3, H, W)")
    if len(tensor.shape) != 4 or tensor.shape[1] != 3 or min(tensor.shape) < 1:
        raise _wrong(f"the shape is (B, 3, H, W), not {tensor.shape}")
    batch, channels, height, width = tensor.shape
    if batch * height * width * scale**2 > limits.tensor_pixels:
        most = limits.tensor_pixels / 1e6
        raise RefusedError(
            413, f"the result has more than {most:g} megapixels; send a file to /v1/upscale"
        )
    return batch, channels, height, width


def _from_bytes(file: BinaryIO) -> FloatNCHW:
    return np.frombuffer(file.read(), "<f4").astype(np.float32, copy=False)


def _from_json(data: object) -> FloatNCHW:
    try:
        with np.errstate(over="ignore"):  # infinity is refused later
            return np.asarray(data, np.float32).reshape(-1)
    except ValueError:
        raise _wrong(_DATA) from None


def _is_binary(request: _Request) -> bool:
    wish = request.parameters.binary_data_output
    if not request.outputs:
        return wish
    output = request.outputs[0]
    if output.name != OUTPUT:
        raise _wrong(f"the one output is '{OUTPUT}'")
    if output.parameters.classification:
        raise _wrong("there are no classes in a picture; drop classification")
    given = output.parameters.binary_data
    return wish if given is None else given


def _wrong(message: str) -> RefusedError:
    return RefusedError(400, message)
