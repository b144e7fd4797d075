"""A service in this process, behind real HTTP on 127.0.0.1."""

from __future__ import annotations

import contextlib
import io
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass

import httpx
import uvicorn
from PIL import Image

from conftest import photo_like
from paragonsr2.serve.limits import Limits
from paragonsr2.serve.listening import address_of, bind
from paragonsr2.serve.models import Engine
from paragonsr2.serve.server import configuration
from paragonsr2.serve.service import Service

LIMITS = Limits(
    body_bytes=400_000,
    result_pixels=2_000_000,
    tensor_pixels=30_000,
    patience=20,
    workers=3,
    waiting=64,
)


@dataclass
class Running:
    """A service that answers at ``url``."""

    service: Service
    url: str
    client: httpx.Client

    @property
    def parts(self):
        return self.service.parts

    @property
    def place(self):
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def get(self, path, **options):
        return self.client.get(path, **options)

    def post(self, path, content=b"", **options):
        return self.client.post(path, content=content, **options)

    def delete(self, path):
        return self.client.delete(path)

    def connect(self):
        return socket.create_connection(self.place, timeout=60)

    def files(self):
        """Folders of requests and jobs."""
        return list(self.parts.spool.root.iterdir())


@contextlib.contextmanager
def serving(folder, limits, **options):
    """Run a service in a thread until the end of the ``with`` statement."""
    service = Service(folder, limits, Engine(), **options)
    config = configuration(service)
    with bind("127.0.0.1", 0) as listener:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = address_of(listener)
        with httpx.Client(base_url=url, timeout=60) as client:
            running = Running(service, url, client)
            try:
                while running.get("/readyz").status_code != 200:
                    assert thread.is_alive()
                yield running
            finally:
                server.should_exit = True
                thread.join()


def start_service(folder, log):
    """``paragonsr2 serve`` in a process of its own, and its address."""
    command = [sys.executable, "-m", "paragonsr2", "serve", "--port", "0", "--folder", folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    line = process.stdout.readline()
    return process, next(word for word in line.split() if word.startswith("http"))


class Gate:
    """Holds the computations of a service until it is opened."""

    def __init__(self, running, monkeypatch):
        self._opened, self.arrived = threading.Event(), threading.Semaphore(0)
        given = running.parts.models.open

        def held(model, scale):
            self.arrived.release()
            assert self._opened.wait(60)
            return given(model, scale)

        monkeypatch.setattr(running.parts.models, "open", held)

    def wait_for(self, count=1):
        for _ in range(count):
            assert self.arrived.acquire(timeout=60)

    def open(self):
        self._opened.set()


def ended(get, job):
    """Ask until the job has ended."""
    while True:
        about = get(f"/v1/jobs/{job}").json()
        if about["state"] not in ("queued", "running"):
            return about


def picture(kind="PNG", height=24, width=32, seed=0):
    buffer = io.BytesIO()
    Image.fromarray(photo_like(height, width, seed=seed)).save(buffer, kind)
    return buffer.getvalue()


def answer_of(connection):
    """Read an answer with a length: status, headers and body; None where there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        piece = connection.recv(65536)
        if not piece:
            break
        body += piece
    return int(first.split()[1]), headers, body
