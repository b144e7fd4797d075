"""The Open Inference Protocol, asked by NVIDIA's own client."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from conftest import photo_like
from paragonsr2.errors import RefusedError
from paragonsr2.serve.limits import Limits
from paragonsr2.serve.tensors import read_request
from paragonsr2.upscale.upscaler import Upscaler

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")

NAME = "paragonsr2_realtime_x2"
INFER = f"/v2/models/{NAME}/infer"


@pytest.fixture
def client(running):
    with triton.InferenceServerClient(running.url.removeprefix("http://")) as client:
        yield client


def pictures(count, height=24, width=33):
    rows = [photo_like(height, width, seed=seed).transpose(2, 0, 1) for seed in range(count)]
    return np.stack(rows).astype(np.float32) / 255


def infer(client, x, *, binary_in=True, binary_out=True, name=NAME, **options):
    given = triton.InferInput("input", list(x.shape), "FP32")
    given.set_data_from_numpy(x, binary_data=binary_in)
    wanted = [triton.InferRequestedOutput("output", binary_data=binary_out)]
    return client.infer(name, [given], outputs=wanted, **options)


def test_the_service_tells_what_it_is(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME)
    assert client.is_model_ready(NAME, "1")
    assert client.get_server_metadata()["name"] == "paragonsr2"
    about = client.get_model_metadata(NAME, "1")
    assert about["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, -1, -1]}]
    assert about["outputs"][0]["name"] == "output"
    assert client.get_model_metadata("paragonsr2_stream_compressed_x2")["versions"] == ["1"]
    assert not client.is_model_ready("paragonsr2_pro_x2")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_a_tensor_becomes_what_the_library_makes_of_it(client, binary_in, binary_out):
    x = pictures(3)
    result = infer(client, x, binary_in=binary_in, binary_out=binary_out, request_id="mine")
    up = Upscaler("realtime", 2)
    expected = [up(np.ascontiguousarray(one.transpose(1, 2, 0))).transpose(2, 0, 1) for one in x]
    np.testing.assert_array_equal(result.as_numpy("output"), np.stack(expected))
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_name"] == NAME


def test_the_client_may_leave_the_outputs_to_the_service(client):
    x = pictures(1)
    given = triton.InferInput("input", list(x.shape), "FP32")
    given.set_data_from_numpy(x)
    assert client.infer(NAME, [given]).as_numpy("output").shape == (1, 3, 48, 66)


def test_requests_at_the_same_time_get_their_own_results(running):
    with triton.InferenceServerClient(running.url.removeprefix("http://"), concurrency=8) as client:
        inputs = [pictures(1, width=30 + number % 2) * (number + 1) / 20 for number in range(12)]
        tensors = []
        for x in inputs:
            tensors.append(triton.InferInput("input", list(x.shape), "FP32"))
            tensors[-1].set_data_from_numpy(x)
        pending = [client.async_infer(NAME, [one]) for one in tensors]
        results = [one.get_result().as_numpy("output") for one in pending]
    up = Upscaler("realtime", 2)
    for x, result in zip(inputs, results, strict=True):
        expected = up(np.ascontiguousarray(x[0].transpose(1, 2, 0))).transpose(2, 0, 1)
        np.testing.assert_array_equal(result[0], expected)


def test_the_client_is_told_what_is_wrong(client):
    for shape, message in (((1, 4, 8, 8), "shape"), ((3, 8, 8), "shape"), ((1, 3, 90, 90), "mega"),
                           ((1, 3, 2000, 2000), "body is larger")):  # fmt: skip
        with pytest.raises(triton.InferenceServerException, match=message):
            infer(client, np.zeros(shape, np.float32))
    with pytest.raises(triton.InferenceServerException, match="no such model"):
        infer(client, pictures(1), name="paragonsr2_realtime_x9")
    with pytest.raises(triton.InferenceServerException, match="NaN"):
        infer(client, np.full((1, 3, 4, 4), np.nan, np.float32))
    given = triton.InferInput("input", [1, 3, 4, 4], "FP32")
    given.set_data_from_numpy(np.zeros((1, 3, 4, 4), np.float32))
    classes = [triton.InferRequestedOutput("output", class_count=2)]
    with pytest.raises(triton.InferenceServerException, match="classes"):
        client.infer(NAME, [given], outputs=classes)


def tensor(**changes):
    return {
        "name": "input",
        "datatype": "FP32",
        "shape": [1, 3, 1, 1],
        "data": [0, 0, 0],
        **changes,
    }


@pytest.mark.parametrize(
    ("request_", "message"),
    [({}, "inputs"), ({"inputs": []}, "inputs"), ({"inputs": [tensor(), tensor()]}, "inputs"),
     ({"inputs": [tensor(name="x")]}, "the one input"),
     ({"inputs": [tensor(datatype="UINT8")]}, "the one input"),
     ({"inputs": [tensor(data=[0, 0])]}, "needs 3 values"),
     ({"inputs": [tensor(data=[[0, 0], [0]])]}, "list of finite"),
     ({"inputs": [tensor(data=None)]}, "binary_data_size"),
     ({"inputs": [tensor(parameters={"binary_data_size": 12})]}, "not both"),
     ({"inputs": [tensor(data=[1e39, float("nan"), 0])]}, "finite"),
     ({"inputs": [tensor(data=[1e39, 0, 0])]}, "infinity"),
     ({"inputs": [tensor(data=[])]}, "list of finite"),
     ({"inputs": [tensor(data=[[[]]])]}, "list of finite"),
     ({"inputs": [tensor()], "outputs": [{"name": "x"}]}, "the one output")],
)  # fmt: skip
def test_nonsense_is_a_400_that_says_why(running, request_, message):
    answer = running.post(INFER, json.dumps(request_).encode())
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_nested_data_are_taken(running):
    nested = tensor(shape=[1, 3, 1, 2], data=[[[[0.1, 0.1]], [[0.2, 0.2]], [[0.3, 0.3]]]])
    output = running.post(INFER, json.dumps({"inputs": [nested]}).encode()).json()["outputs"][0]
    assert output["shape"] == [1, 3, 2, 4]
    assert output["data"][0] == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize(
    "text",
    ['"data":[' + "[]," * 600_000 + "[]]", '"data":[' + "{}," * 600_000 + "{}]",
     '"parameters":{' + ",".join(f'"k{n}":[]' for n in range(150_000)) + "}"],
    ids=["lists", "objects", "parameters"],
)  # fmt: skip
def test_json_does_not_become_objects_of_many_times_its_size(tmp_path, text):
    body = tmp_path / "body"
    body.write_text(
        '{"inputs":[{"name":"input","datatype":"FP32","shape":[1,3,9,9],' + text + "}]}"
    )
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError):
            read_request(body, None, 2, Limits())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * body.stat().st_size
