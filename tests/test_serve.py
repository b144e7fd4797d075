"""The HTTP service: right pictures, bounded queues and bodies, nothing left behind."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from conftest import photo_like
from paragonsr2.cli.main import main
from paragonsr2.errors import BackendError
from paragonsr2.serve.gather import GatheringBackend
from paragonsr2.upscale.backends import ClassicalBackend
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.weights.purposes import suited

pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")
from serving import LIMITS, Gate, answer_of, picture, start_service


def by_command(content, folder, model="realtime", scale=2, suffix=".png", **options):
    """The bytes that the command writes."""
    source, target = folder / f"source{suffix}", folder / f"target{options.pop('to', suffix)}"
    source.write_bytes(content)
    target.unlink(missing_ok=True)
    assert run_task(Task(source, target), Upscaler(model, scale), **options).status == "done"
    return target.read_bytes()


# --- results ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "suffix", "wanted", "to", "model"),
    [("PNG", ".png", "keep", ".png", "realtime"), ("PNG", ".png", "webp", ".webp", "realtime"),
     ("JPEG", ".jpg", "keep", ".jpg", suited(2, quality=75)),
     ("WEBP", ".webp", "tiff", ".tif", "realtime")],
)  # fmt: skip
def test_the_result_has_the_bytes_of_the_command(
    running, tmp_path, kind, suffix, wanted, to, model
):
    content = picture(kind)
    expected = by_command(content, tmp_path, model, suffix=suffix, to=to, quality=80)
    answer = running.post(f"/v1/upscale?format={wanted}&quality=80", content)
    assert answer.status_code == 200, answer.text
    assert answer.content == expected
    form = running.post(
        "/v1/upscale?quality=80",
        None,
        files={"image": ("../any name.exe", content)},
        data={"format": wanted},
    )
    assert form.content == expected
    facts = {name: answer.headers[f"x-paragonsr2-{name}"] for name in ("model", "scale", "width")}
    assert facts == {"model": model, "scale": "2", "width": "64"}
    assert "onnxruntime" in answer.headers["x-paragonsr2-backend"]
    assert answer.headers["content-type"].startswith("image/")


def test_what_the_format_loses_is_said(running):
    moving = io.BytesIO()
    alpha = np.dstack([photo_like(24, 32), np.full((24, 32), 100, np.uint8)])
    Image.fromarray(alpha).save(moving, "PNG")
    answer = running.post("/v1/upscale?model=bicubic&format=jpg", moving.getvalue())
    assert "alpha is laid on white" in answer.headers["x-paragonsr2-note"]


def test_requests_at_the_same_time_get_their_own_right_results(running, tmp_path):
    sizes = [(24, 32), (24, 32), (17, 40), (33, 5)]
    wishes = [
        (picture(height=h, width=w, seed=seed), model)
        for seed in range(4)
        for h, w in sizes
        for model in ("realtime", "bicubic")
    ]
    expected = [by_command(content, tmp_path, model) for content, model in wishes]
    with ThreadPoolExecutor(16) as clients:
        answers = clients.map(lambda w: running.post(f"/v1/upscale?model={w[1]}", w[0]), wishes)
        assert [answer.content for answer in answers] == expected


def test_tiles_that_wait_are_computed_together(make_running, monkeypatch, tmp_path):
    contents = [picture(seed=seed) for seed in range(3)]
    expected = [by_command(content, tmp_path) for content in contents]
    with make_running() as running, ThreadPoolExecutor(3) as clients:
        backend = running.parts.models.open("realtime", 2).backend
        inner, sizes = backend.backend, []
        run = inner.run
        monkeypatch.setattr(inner, "run", lambda x: (sizes.append(len(x)), run(x))[1])
        # The engine is taken until all three wait for it.
        with backend._engine:
            answers = [clients.submit(running.post, "/v1/upscale", one) for one in contents]
            while len(backend._waiting) < 3:
                assert not any(answer.done() for answer in answers)
        assert [answer.result().content for answer in answers] == expected
    assert sizes == [3]


def test_a_tile_that_fails_fails_alone():
    class Moody(ClassicalBackend):
        exact_in_batches = True

        def run(self, x):
            if len(x) > 1 or x.max() > 1:
                raise BackendError("no")
            return super().run(x)

    gathering = GatheringBackend(Moody(2, None), None, lambda _: None)
    tiles = [np.full((1, 3, 4, 4), value, np.float32) for value in (0.2, 2.0, 0.7)]

    def attempt(tile):
        try:
            return gathering.run(tile).mean()
        except BackendError:
            return None

    with ThreadPoolExecutor(3) as threads:
        with gathering._engine:
            results = [threads.submit(attempt, tile) for tile in tiles]
            while len(gathering._waiting) < 3:
                pass
        values = [result.result() for result in results]
    assert values[1] is None
    assert values[0] == pytest.approx(0.2)
    assert values[2] == pytest.approx(0.7)


# --- the queue and the limits -----------------------------------------------------------------


def test_a_full_queue_refuses_and_recovers(make_running, monkeypatch):
    with (
        make_running(replace(LIMITS, workers=1, waiting=2)) as running,
        ThreadPoolExecutor(3) as clients,
    ):
        gate = Gate(running, monkeypatch)
        inside = [clients.submit(running.post, "/v1/upscale", picture()) for _ in range(3)]
        while running.parts.queue.running_or_waiting < 3:
            assert not any(answer.done() for answer in inside)
        refused = running.post("/v1/upscale", picture())
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert running.post("/v2/models/paragonsr2_realtime_x2/infer", b"x").status_code == 429
        gate.open()
        assert [answer.result().status_code for answer in inside] == [200] * 3
        assert running.post("/v1/upscale", picture()).status_code == 200


def test_a_client_who_leaves_gives_up_its_place(make_running, monkeypatch):
    with make_running(replace(LIMITS, workers=1, waiting=2)) as running:
        gate = Gate(running, monkeypatch)
        clients = [running.connect() for _ in range(3)]
        content = picture()
        head = f"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}"
        for client in clients:
            client.sendall(f"{head}\r\n\r\n".encode() + content)
        gate.wait_for(1)
        while running.parts.queue.running_or_waiting < 3:
            pass
        for client in clients:
            client.close()
        while running.parts.queue.running_or_waiting > 1:  # the one that runs is in the gate
            pass
        gate.open()
        while running.parts.queue.running_or_waiting > 0:
            pass
        assert running.post("/v1/upscale", picture()).status_code == 200
        while running.files():
            pass


def test_too_many_bytes_are_refused_however_they_come(running):
    large = b"\x89PNG\r\n\x1a\n" + bytes(LIMITS.body_bytes)
    answers = [
        running.post("/v1/upscale", large),
        running.post("/v1/upscale", (large[at : at + 5000] for at in range(0, len(large), 5000))),
        running.post("/v1/upscale", None, files={"image": large}),
        running.post("/v1/jobs?name=a.mp4", large),
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [413] * 4
    assert "0.4 MB" in answers[0].json()["error"]


def test_disk_space_is_bounded_by_what_arrives(make_running):
    with make_running(replace(LIMITS, disk_bytes=100_000)) as running:
        answer = running.post("/v1/upscale", iter([bytes(60_000), bytes(60_000)]))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert running.parts.spool.used == 0
        assert running.files() == []


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 503), (errno.EIO, 500)])
def test_a_full_disk_is_not_an_error_of_the_service(running, monkeypatch, number, status):
    def write(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(running.parts.spool, "folder", write)
    # The server ends a connection after an error that it did not expect; no other test may use it.
    alone = {"connection": "close"}
    answer = running.post("/v1/upscale?scale=2", picture(), headers=alone)
    assert answer.status_code == status
    assert ("retry-after" in answer.headers) == (status == 503)


def test_too_many_pixels_are_refused_before_they_are_decoded(running):
    flat = io.BytesIO()
    Image.new("RGB", (1000, 600)).save(flat, "PNG")
    assert running.post("/v1/upscale?model=bicubic", flat.getvalue()).status_code == 413
    moving = io.BytesIO()
    frames = [Image.new("RGB", (300, 300), (n, n, n)) for n in range(6)]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    answer = running.post("/v1/upscale?model=bicubic", moving.getvalue())
    assert answer.status_code == 413
    assert "0.5 megapixels" in answer.json()["error"]


def test_a_computation_that_takes_too_long_ends(make_running):
    with make_running(replace(LIMITS, seconds=0)) as running:
        answer = running.post("/v1/upscale", picture())
        assert answer.status_code == 504
        assert "longer than" in answer.json()["error"]


# --- operation --------------------------------------------------------------------------------


def test_the_description_works_offline(running):
    page = running.get("/docs")
    links = [part.split('"')[0] for part in page.text.replace("src=", "href=").split('href="')[1:]]
    assert links
    for link in links:
        assert link.startswith("/"), "nothing from another host"
        assert running.get(link).status_code == 200
    assert "connect-src 'self'" in page.headers["content-security-policy"]
    paths = running.get("/openapi.json").json()["paths"]
    body = paths["/v1/upscale"]["post"]["requestBody"]["content"]
    assert {"application/octet-stream", "multipart/form-data"} == set(body)
    assert {"/v1/jobs", "/v1/models", "/v2/models/{name}/infer", "/metrics"} <= set(paths)


def test_metrics_count_by_route_and_never_by_what_a_client_wrote(running):
    running.get("/no/such/zebra")
    running.post("/v1/upscale", picture())
    text = running.get("/metrics").text
    assert "zebra" not in text
    assert 'paragonsr2_requests_total{route="/v1/upscale",status="200"}' in text
    assert 'paragonsr2_requests_total{route="none",status="404"}' in text
    assert 'paragonsr2_result_pixels_total{model="realtime",scale="2"}' in text
    assert "process_resident_memory_bytes" in text


def test_models_are_those_that_can_be_chosen(running):
    models = running.get("/v1/models").json()["models"]
    for one in models:
        answer = running.post(
            f"/v1/upscale?model={one['model']}&scale={one['scale']}", picture(height=4, width=4)
        )
        assert answer.status_code == 200
    assert {"auto", "realtime", "stream", "bicubic"} <= {one["model"] for one in models}


def test_strength_goes_from_the_faithful_model_to_the_other(running):
    def answer(query):
        given = running.post(f"/v1/upscale?{query}", picture())
        assert given.status_code == 200
        return given

    faithful, real = answer("model=stream").content, answer("model=stream:real").content
    assert answer("model=stream:real&strength=0").content == faithful
    assert answer("model=stream:real&strength=1").content == real
    between = answer("model=stream:real&strength=0.5")
    assert between.content not in (faithful, real)
    assert between.headers["X-ParagonSR2-Model"] == "stream:real@0.5"
    dialled = {
        one["model"] for one in running.get("/v1/models").json()["models"] if one.get("dial")
    }
    assert "stream:real" in dialled
    assert not {"stream", "bicubic"} & dialled


def test_sigterm_finishes_what_was_begun(tmp_path):
    with (tmp_path / "log").open("w") as log:
        process, url = start_service(tmp_path / "s", log)
    host, port = url.removeprefix("http://").split(":")
    content = picture()
    with socket.create_connection((host, int(port)), timeout=60) as client:
        head = (
            "POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: mine\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        client.sendall(head.encode() + content[:50])
        assert httpx.get(f"{url}/healthz").status_code == 200  # the server is awake
        process.send_signal(signal.SIGTERM)
        while True:  # until the server takes no new connections
            try:
                socket.create_connection((host, int(port)), timeout=60).close()
            except OSError:
                break
        client.sendall(content[50:])
        status, headers, body = answer_of(client)
    assert process.wait(60) == 0
    process.stdout.close()
    assert status == 200
    assert body == by_command(content, tmp_path)
    lines = [json.loads(line) for line in Path(tmp_path / "log").read_text().splitlines()]
    (mine,) = [line for line in lines if line.get("id") == "mine"]
    assert (mine["status"], mine["received"]) == (200, len(content))
    assert mine["result"]["model"] == "realtime"
    assert headers["x-request-id"] == "mine"
    assert list((tmp_path / "s" / "files").iterdir()) == []


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi_offline", None)
    monkeypatch.setattr("sys.argv", ["paragonsr2", "serve"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert 'pip install "paragonsr2[serve]"' in capsys.readouterr().err


def test_an_engine_that_cannot_run_is_told_before_anything_is_served(tmp_path, monkeypatch, capsys):
    options = ["--port", "0", "--folder", str(tmp_path / "s"), "--backend", "tensorrt"]
    monkeypatch.setattr("sys.argv", ["paragonsr2", "serve", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    told = capsys.readouterr()
    assert "TensorRT runs engine files" in told.err
    assert "http" not in told.out


def test_the_command_does_not_load_the_service():
    code = "import sys, paragonsr2.cli.main; sys.exit('fastapi' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
