"""The server of the page: what it lets in, how much, and what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from clips import make_clip, regular
from paragonsr2.app.server import remove_leftovers
from paragonsr2.cli.main import main

pytest.importorskip("prometheus_client", reason="the extra app is not installed")
pytest.importorskip("fastapi_offline", reason="the extra app is not installed")
from paragonsr2.app.routes import page_routes
from serving import LIMITS, answer_of, picture, serving


@dataclass
class Server:
    process: subprocess.Popen
    url: str
    folder: Path
    log: Path

    @property
    def root(self):
        (root,) = self.folder.glob("paragonsr2-app-*")
        return root

    @property
    def place(self):
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)


def start_server(folder, *options):
    """``paragonsr2 app`` in a process of its own, its temporary files in ``folder``."""
    log = folder / "log.txt"
    temporary = folder / "tmp"
    temporary.mkdir()
    with log.open("w") as messages:
        process = subprocess.Popen(
            [sys.executable, "-m", "paragonsr2", "app", "--port", "0", *options],
            env=os.environ | {"TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
        )
    line = process.stdout.readline()
    assert "http://" in line, log.read_text()
    url = next(word for word in line.split() if word.startswith("http"))
    return Server(process, url, temporary, log)


def stop_server(server, how=signal.SIGINT):
    server.process.send_signal(how)
    code = server.process.wait(60)
    server.process.stdout.close()
    return code


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = start_server(
        tmp_path_factory.mktemp("server"),
        *("--max-upload", "0.2", "--max-megapixels", "0.5", "--max-disk", "0.02"),
        *("--max-waiting", "200"),
    )
    yield running
    if running.process.poll() is None:
        stop_server(running)


def client_of(server):
    # Others use this machine's cores, too.
    return httpx.Client(base_url=server.url, timeout=120, trust_env=False)


def files_of(server):
    return [Path(folder, name) for folder, _, names in os.walk(server.root) for name in names]


def size_of(path):
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def end_of(client, job):
    while True:
        about = client.get(f"/v1/jobs/{job}").json()
        if about["state"] not in ("queued", "running"):
            return about


def still_works(server):
    with client_of(server) as client:
        job = client.post("/v1/jobs?name=a.png", content=picture()).json()["id"]
        about = end_of(client, job)
        client.delete(f"/v1/jobs/{job}")
        return (about["state"], about["width"], about["height"]) == ("done", 64, 48)


# --- who asks, and for what -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"host": "evil.example"}, "/", 421),
        ({"host": "evil.example"}, "/web/", 421),
        ({"origin": "https://evil.example"}, "/", 403),
        ({"origin": "null"}, "/page/app.js", 403),
        ({}, "/page/..%2fserver.py", 404),
        ({}, "/page/%2e%2e/server.py", 404),
        ({}, "/page/unknown", 404),
        ({}, "/web/..%2fsite.py", 404),
        ({}, "/web/unknown", 404),
        ({}, "/files", 404),
        ({}, "/v1/jobs/unknown/result", 404),
        ({}, "/v1/jobs/unknown/preview", 404),
        ({}, "/v1/results?id=unknown", 404),
        ({}, "/etc/passwd", 404),
    ],
)
def test_nothing_but_the_page_and_the_service_answers(server, headers, path, status):
    answer = httpx.get(server.url + path, headers=headers, trust_env=False)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"


def test_the_page_allows_no_other_place_and_no_strange_code(server):
    with client_of(server) as client:
        for path in ("/", "/page/app.js", "/page/app.css", "/web/", "/web/worker.js"):
            answer = client.get(path)
            assert answer.status_code == 200
            policy = answer.headers["content-security-policy"]
            assert "default-src" in policy
            assert "http" not in policy
            assert "unsafe-inline" not in policy
            assert "'unsafe-eval'" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
        policy = client.get("/").headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "wasm" not in policy


def test_it_listens_on_this_machine_alone(server):
    assert server.url.startswith("http://127.0.0.1:")
    about = httpx.get(server.url + "/page/about.json", trust_env=False).json()
    assert about["local"] is True
    assert about["upload_bytes"] == 200_000
    assert about["examples"] == ["houses.png"]


# --- hostile clients --------------------------------------------------------------------------


def png_that_claims(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(100_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def tiff_that_claims(width, height):
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, width * height % 2**32)]
    body = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags))
    for tag, value in tags:
        body += struct.pack("<HHII", tag, 4, 1, value)
    return body + bytes(4)


def hostile_uploads():
    """100 pairs of name and content that no one should send."""
    rng = random.Random(5)
    good = {kind: picture(kind, 40, 60) for kind in ("PNG", "JPEG", "WEBP", "TIFF")}
    pairs = [
        (name, good["PNG"])
        for name in ("x.php", "x.exe", "x.svg", "x.pdf", "x.mat", "x.v", "x.csv", "x", "",
                     "x.png.sh", "x.html", "x.npy", "x.pth", "x.safetensors", "x.png\x00.txt",
                     "../../x.png", "x" * 5000, "x.mp4", "x.mkv", "x.m3u8", "x.ffconcat")
    ]  # fmt: skip
    pairs += [
        (name, content)
        for name in ("x.png", "x.mp4")
        for content in (
            b"", b"\0", b"\x89PNG\r\n\x1a\n", b"GIF89a",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"<html><script>alert(1)</script>", b"%PDF-1.4", b"PK\x03\x04", b"\x7fELF",
            b"#!/bin/sh\nid", b"#EXTM3U\n#EXTINF:1\nfile:///etc/passwd\n",
            b"ffconcat version 1.0\nfile /etc/passwd\n",
            b"P6 99999 99999 255\n", b"RIFF\xff\xff\xff\xffWEBPVP8L", b"\xff\xd8\xff\xd9",
            rng.randbytes(5000), rng.randbytes(150_000), b"BM" + bytes(60), b"\0\0\1\0" * 9,
        )
    ]  # fmt: skip
    pairs += [(f"bad.{suffix}", rng.randbytes(3000)) for suffix in ("mkv", "avi", "ts")]
    for kind, content in good.items():
        pairs += [
            (f"cut.{kind.lower()}", content[: len(content) * part // 5]) for part in (1, 2, 3, 4)
        ]
        flipped = bytearray(content)
        for place in rng.sample(range(20, len(content)), 12):
            flipped[place] ^= 0xFF
        pairs.append((f"flipped.{kind.lower()}", bytes(flipped)))
    pairs += [
        (f"bomb{side}.png", png_that_claims(side, side)) for side in (5000, 30_000, 2**31 - 1)
    ]
    pairs += [(f"bomb{side}.tif", tiff_that_claims(side, side)) for side in (5000, 60_000, 2**31)]
    pairs += [(f"large{n}.png", bytes(200_001 + n)) for n in range(5)]
    pairs += [(f"endless{n}.png", None) for n in range(9)]
    return pairs


def endless():
    for _ in range(100):
        yield bytes(10_000)


def test_a_hundred_hostile_uploads_change_nothing_but_the_private_folder(server):
    uploads = hostile_uploads()
    assert len(uploads) >= 100
    largest = 0

    def send(upload):
        nonlocal largest
        name, content = upload
        with client_of(server) as client:
            told = []
            for place in ("/v1/preview", "/v1/jobs"):
                query = {"name": name} | ({"model": "bicubic"} if place == "/v1/jobs" else {})
                body = endless() if content is None else content
                answer = client.post(place, params=query, content=body)
                told.append(answer)
                largest = max(largest, sum(size_of(path) for path in files_of(server)))
            if told[1].status_code != 202:
                return told, None
            return told, end_of(client, told[1].json()["id"])

    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(send, uploads))

    for (name, content), (answers, about) in zip(uploads, ends, strict=True):
        texts = [str(about), *(one.text for one in answers if one.status_code != 200)]
        private = ("Traceback", str(server.folder), "root:")
        assert [text for text in texts if any(one in text for one in private)] == [], name
        for answer in answers:
            good = answer.status_code in (200, 202)
            assert good or 400 <= answer.status_code < 500, (name, answer.text)
        if content is None or len(content) > 200_000:
            assert [one.status_code for one in answers] == [413, 413], name
        if name.startswith(("bomb", "cut.png", "cut.jpeg", "cut.webp")):
            assert answers[0].status_code in (413, 422), name
            assert about is None or about["state"] == "failed" or "damage" in about["message"], name
    assert largest <= 20_000_000
    assert [path.name for path in server.folder.iterdir()] == [server.root.name]
    names = {path.name for path in files_of(server) if not path.name.startswith("jobs.sqlite")}
    assert {name.partition(".")[0] for name in names} <= {"source", "result"}
    assert "Traceback" not in server.log.read_text()
    assert still_works(server)


@pytest.fixture
def with_page(tmp_path):
    """A service with the page, in this process."""

    def make(limits=LIMITS):
        pages = page_routes(limits, local=True)
        return serving(tmp_path / "service", limits, pages=pages)

    return make


def test_a_false_length_and_a_stall_end_at_the_guard(with_page):
    limits = replace(LIMITS, patience=0.3, least_rate=1e6, disk_bytes=100_000, drop_oldest=True)
    with with_page(limits) as running:
        for path in ("/v1/jobs?name=a.png", "/v1/preview?name=a.png"):
            # Chunked, whatever length it states: what arrives is counted.
            with running.connect() as client:
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked"
                client.sendall(f"{head}\r\nContent-Length: 1\r\n\r\n".encode())
                assert answer_of(client)[0] == 400
            body = (bytes(20_000) for _ in range(10))
            assert running.post(path, body).status_code == 503, "no more than the disk's limit"
            # A stalled body goes, and what it holds is given back.
            with running.connect() as client:
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n"
                client.sendall(head.encode() + bytes(80_000))
                status, headers, _ = answer_of(client)
                assert (status, headers["connection"]) == (408, "close")
        assert running.files() == []
        assert running.parts.spool.used == 0
        assert running.get("/").status_code == 200


def test_nonsense_is_the_clients_fault(with_page):
    rng = random.Random(3)
    with with_page() as running:
        for method in ("POST", "PUT", "DELETE", "PATCH", "FOO"):
            for path in ("/", "/page/app.js", "/web/", "/page/about.json"):
                answer = running.client.request(method, path, content=b"x")
                assert 400 <= answer.status_code < 500
        for _ in range(60):
            raw = bytes(rng.choice(b"/?&=%.:;[]{}<>\\'\"ab1") for _ in range(rng.randint(1, 60)))
            for place in ("/page/", "/web/", "/v1/jobs/", "/v1/results?id=", "/v1/preview?"):
                path = place + raw.decode()
                answer = running.client.request(rng.choice(["GET", "POST"]), path)
                assert answer.status_code < 500, path
        assert running.files() == []


def test_visitors_who_vanish_do_no_harm(server):
    before = len(files_of(server))
    for path in ("/v1/jobs?name=a.png", "/v1/preview?name=a.png"):
        for _ in range(5):
            with socket.create_connection(server.place) as connection:
                connection.sendall(
                    f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
                    "Content-Length: 100000\r\n\r\nhalf".encode()
                )
    assert still_works(server)
    while len(files_of(server)) > before:
        pass
    assert "Traceback" not in server.log.read_text()


# --- the life of the server -------------------------------------------------------------------


def test_folders_of_killed_servers_are_removed_and_others_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = tmp_path / f"paragonsr2-app-{dead.pid}-x"
    stay = [tmp_path / f"paragonsr2-app-{os.getpid()}-x", tmp_path / "paragonsr2-app-y-x"]
    for folder in (gone, *stay):
        folder.mkdir()
    remove_leftovers()
    assert not gone.exists()
    assert all(folder.exists() for folder in stay)


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi_offline", None)
    monkeypatch.setattr("sys.argv", ["paragonsr2", "app"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert 'pip install "paragonsr2[app]"' in capsys.readouterr().err


def test_a_taken_port_is_told(server, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["paragonsr2", "app", "--port", str(server.place[1])])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_asked_to_end_at_once_it_leaves_nothing(tmp_path):
    server = start_server(tmp_path)
    assert stop_server(server, signal.SIGTERM) == 0
    assert list(server.folder.iterdir()) == []
    assert "Traceback" not in server.log.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_asked_to_end_amid_work_it_removes_its_files(server, tmp_path):
    """The last test of this server."""
    make_clip(tmp_path / "clip.mp4", regular(400), options={"crf": "40"})
    with client_of(server) as client:
        content = (tmp_path / "clip.mp4").read_bytes()
        job = client.post("/v1/jobs?name=a.mp4", content=content).json()["id"]
        while client.get(f"/v1/jobs/{job}").json()["share"] == 0:
            pass
        with socket.create_connection(server.place) as upload:
            upload.sendall(
                b"POST /v1/jobs?name=a.png HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 100000\r\n\r\nhalf"
            )
            assert stop_server(server) == 0
    assert list(server.folder.iterdir()) == []
    assert "Traceback" not in server.log.read_text()
