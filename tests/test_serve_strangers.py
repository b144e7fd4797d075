"""The HTTP service against strangers: slow, lying, hostile, or from another site."""

from __future__ import annotations

import json
import random
import socket
from dataclasses import replace

import httpx
import numpy as np
import pytest

from paragonsr2.errors import UsageError
from paragonsr2.serve.server import read_token
from paragonsr2.serve.telling import without_paths
from paragonsr2.upscale.task import Task

pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")
from serving import LIMITS, answer_of, picture


def test_a_false_length_is_refused(running):
    for extra in ("Transfer-Encoding: chunked\r\nContent-Length: 1", "Content-Length: -1",
                  "Content-Length: 1\r\nContent-Length: 2", "Content-Length: 99999999999",
                  "Expect: 100-continue\r\nContent-Length: 500000"):  # fmt: skip
        with running.connect() as client:
            head = f"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n\r\n"
            client.sendall(head.encode())
            status = answer_of(client)[0]
            assert status in (400, 413), extra


@pytest.mark.parametrize("sent", ["", "POST /v1/ups", "POST /v1/upscale HTTP/1.1\r\nHost: local"])
def test_a_connection_without_a_request_is_closed(make_running, sent):
    with make_running(replace(LIMITS, patience=0.2)) as running, running.connect() as client:
        client.sendall(sent.encode())
        assert client.recv(100) == b""


@pytest.mark.parametrize(
    "path",
    [
        "/v1/upscale",
        "/v1/jobs?name=a.mp4",
        "/v1/jobs",
        "/v1/preview",
        "/v2/models/paragonsr2_realtime_x2/infer",
    ],
)
def test_an_upload_that_stalls_is_ended(make_running, path):
    with make_running(replace(LIMITS, patience=0.2)) as running, running.connect() as client:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc"
        client.sendall(head.encode())
        status, headers, _ = answer_of(client)
        assert (status, headers["connection"]) == (408, "close")
        assert client.recv(100) == b""
        assert running.files() == []


def test_an_answer_that_nobody_takes_is_dropped(make_running):
    """The client asks for 12 MB and reads nothing of it."""
    limits = replace(LIMITS, patience=0.2, least_rate=1e9, body_bytes=10**7, tensor_pixels=10**7)
    shape = (1, 3, 256, 256)
    data = bytes(4 * int(np.prod(shape)))
    tensor = {"name": "input", "datatype": "FP32", "shape": shape}
    tensor["parameters"] = {"binary_data_size": len(data)}
    wish = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    text = json.dumps(wish).encode()
    head = (
        "POST /v2/models/paragonsr2_realtime_x4/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Inference-Header-Content-Length: {len(text)}\r\n"
        f"Content-Length: {len(text) + len(data)}\r\n\r\n"
    )
    with make_running(limits) as running, running.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(head.encode() + text + data)
        while 'status="499"' not in running.get("/metrics").text:
            pass
        assert running.files() == []


def test_a_token_is_asked_for(make_running):
    token = "a-very-long-and-secret-word"
    with make_running(token=token) as running:
        for given in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {token}"},
                      {"Authorization": f"Bearer {token}x"}):  # fmt: skip
            for path in ("/v1/upscale", "/v1/jobs", "/v2/models/paragonsr2_realtime_x2/infer"):
                answer = running.post(path, picture(), headers=given)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
            for path in ("/metrics", "/v1/models", "/v1/jobs/x", "/docs/../metrics"):
                assert running.get(path, headers=given).status_code == 401
        for path in ("/healthz", "/readyz", "/docs", "/v2/health/ready"):
            assert running.get(path).status_code == 200
        known = {"Authorization": f"Bearer {token}"}
        assert running.post("/v1/upscale", picture(), headers=known).status_code == 200


def test_a_token_is_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    assert read_token(path) == "0123456789abcdef"
    monkeypatch.setenv("PARAGONSR2_TOKEN", "fedcba9876543210")
    assert read_token(None) == "fedcba9876543210"
    monkeypatch.delenv("PARAGONSR2_TOKEN")
    assert not read_token(None)
    path.write_text("")
    for wrong in (path, tmp_path / "absent"):
        with pytest.raises(UsageError, match="token"):
            read_token(wrong)


def test_other_sites_cannot_use_a_local_service(running):
    for headers, status in (
        ({"Host": "evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "[::"}, 400),
    ):
        assert running.get("/healthz", headers=headers).status_code == status
    assert running.get("/healthz", headers={"Origin": running.url}).status_code == 200


def hostile_requests(rng):
    """Method, path, headers and body of requests that no good client makes."""
    good = picture()
    paths = ["/v1/upscale", "/v1/jobs", "/v2/models/paragonsr2_realtime_x2/infer"]
    for _ in range(60):  # damaged pictures
        mutated = bytearray(good)
        for _ in range(rng.randint(1, 20)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        yield "POST", "/v1/upscale?model=bicubic", {}, bytes(mutated[: rng.randint(1, len(good))])
    for _ in range(40):  # noise behind the first bytes of a format
        start = rng.choice([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"RIFF"])
        yield "POST", "/v1/upscale?model=bicubic", {}, start + rng.randbytes(rng.randint(0, 500))
    queries = ["model=/etc/passwd", "model=x.onnx", "model=" + "a" * 5000, "scale=-1",
               "scale=1e9", "scale=2&scale=4&x=", "format=../../x", "quality=0", "%00=%00",
               "model=%F0%28"]  # fmt: skip
    for query in queries:
        for path in paths[:2]:
            yield "POST", f"{path}?{query}", {}, good
    for parameters in ("", "; boundary=", "; boundary=x", "; charset=utf-9; boundary=y"):
        form = f"multipart/form-data{parameters}"
        for body in (b"", b"--x", b"--x\r\n\r\n--x--", b"--y\r\n" * 100, b"--x\r\n" + b"a" * 9000):
            yield "POST", rng.choice(paths), {"Content-Type": form}, body
    start = '{"inputs":[{"name":"input","datatype":"FP32",'
    wide = "[99999999999,3,99999999999,9]"
    for text in ("", "{", "[]", "null", "[" * 10_000, '{"inputs":[]}', '{"inputs":[{"name":1}]}',
                 start + '"shape":[1,3,-4,4],"data":[]}]}',
                 start + '"shape":[1,3,1,1],"data":[1,2]}]}',
                 start + '"shape":[1,3,1,1],"data":["a",{},[]]}]}',
                 start + '"shape":[1,3,1,1],"data":[1e999,0,0]}]}',
                 start + '"shape":[9e9,3,9,9],"data":[]}]}',
                 start + f'"shape":{wide},"parameters":{{"binary_data_size":4}}}}]}}'):  # fmt: skip
        for length in (None, "0", "-1", "99999999", "1" * 5000, "\u00b2", str(len(text))):
            headers = {} if length is None else {"Inference-Header-Content-Length": length.encode()}
            yield "POST", paths[2], headers, text.encode()
    for path in ("/../../etc/passwd", "/v1/jobs/../../jobs.sqlite", "/v1/jobs/%2e%2e/result",
                 "/v1/jobs/' OR 1=1 --", "/v2/models/../x", "/docs/assets/../../x",
                 "/v1/jobs/%00"):  # fmt: skip
        for method in ("GET", "DELETE", "TRACE", "FOO"):
            yield method, path, {}, b""
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    for headers in ({"Content-Encoding": "gzip"}, upgrade):
        yield "POST", paths[0], headers, b""


def test_hostile_requests_are_answered_and_harm_nothing(running):
    requests = list(hostile_requests(random.Random(17)))
    assert len(requests) >= 200
    with httpx.Client(base_url=running.url, timeout=60) as client:
        for method, path, headers, body in requests:
            answer = client.request(method, path, headers=headers, content=body)
            # Some damage decoders cannot see; the rest is the client's fault.
            assert answer.status_code == 200 or 400 <= answer.status_code < 500, (path, answer.text)
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/json"
                told = answer.json()["error"]
                assert str(running.parts.spool.root) not in told
                assert "Traceback" not in told
    assert running.post("/v1/upscale", picture()).status_code == 200


def test_a_message_names_nobody_elses_folder(tmp_path):
    mine, theirs = (Task(tmp_path / one / "source.png", tmp_path / one / "r.png") for one in "ab")
    text = f"cannot read {mine.source}: broken; {theirs.source}: cut '{theirs.target}'"
    told = without_paths(text, mine, "the picture")
    assert told == "cannot read the picture: broken; another file: cut 'another file'"
