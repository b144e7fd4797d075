"""The Open Inference Protocol, version 2, over HTTP: what Triton and KServe speak."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from paragonsr2.arrays.pixels import FloatNCHW, Pixels
from paragonsr2.errors import RefusedError
from paragonsr2.serve.answers import FileAnswer, receive_file
from paragonsr2.serve.guard import note_done
from paragonsr2.serve.parts import Parts
from paragonsr2.serve.queueing import Stop
from paragonsr2.serve.tensors import (
    DATATYPE,
    INPUT,
    JSON_LENGTH,
    OUTPUT,
    TensorRequest,
    answer_head,
    read_request,
)
from paragonsr2.variants import ARCH_PREFIX
from paragonsr2.version import __version__
from paragonsr2.weights.catalogue import Entry, entries

_VERSION = "1"

#: Threads that enlarge the pictures of one tensor.
_ABREAST = 8


def model_names() -> dict[str, Entry]:
    """Bundled networks by the names that ``paragonsr2 export --format triton`` gives them."""
    return {
        f"{ARCH_PREFIX}{entry.model.replace(':', '_')}_x{entry.scale}": entry for entry in entries()
    }


class InferenceRoutes:
    """Tensors in, tensors out.

    Args:
        parts: of the service.
        ready: whether the service takes requests.
    """

    def __init__(self, parts: Parts, ready: Callable[[], bool]) -> None:
        self._parts, self._ready = parts, ready
        self._names = model_names()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["Open Inference Protocol"])
        for path, answer in (
            ("/v2", self.server),
            ("/v2/health/live", self.live),
            ("/v2/health/ready", self.ready),
            ("/v2/models/{name}", self.model),
            ("/v2/models/{name}/versions/{version}", self.model),
            ("/v2/models/{name}/ready", self.model_ready),
            ("/v2/models/{name}/versions/{version}/ready", self.model_ready),
        ):
            router.add_api_route(path, answer, methods=["GET"])
        for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
            router.add_api_route(path, self.infer, methods=["POST"], response_class=Response)
        return router

    async def server(self) -> dict[str, Any]:
        """Name, version and extensions."""
        return {
            "name": "paragonsr2",
            "version": __version__,
            "extensions": ["binary_tensor_data"],
        }

    async def live(self) -> dict[str, bool]:
        """The service answers."""
        return {"live": True}

    async def ready(self) -> JSONResponse:
        """Whether the service takes requests."""
        return JSONResponse({"ready": self._ready()}, 200 if self._ready() else 503)

    async def model(self, name: str, version: str = _VERSION) -> dict[str, Any]:
        """Inputs and outputs of a model."""
        self._find(name, version)
        shape = [-1, 3, -1, -1]
        return {
            "name": name,
            "versions": [_VERSION],
            "platform": "paragonsr2",
            "inputs": [{"name": INPUT, "datatype": DATATYPE, "shape": shape}],
            "outputs": [{"name": OUTPUT, "datatype": DATATYPE, "shape": shape}],
        }

    async def model_ready(self, name: str, version: str = _VERSION) -> JSONResponse:
        """Whether a model takes requests; it is opened by the first one."""
        self._find(name, version)
        ready = {"name": name, "ready": self._ready()}
        return JSONResponse(ready, 200 if self._ready() else 503)

    async def infer(self, request: Request, name: str, version: str = _VERSION) -> Response:
        """Enlarge a tensor of RGB pictures, nominally 0..1; the result is not clipped."""
        entry = self._find(name, version)
        self._parts.queue.require_room()
        folder = self._parts.spool.folder()
        try:
            body, _ = await receive_file(request, folder, "request")
            json_length = request.headers.get(JSON_LENGTH)
            path, head = await self._parts.queue.run(
                request.receive,
                lambda stop: self._answer(body, json_length, name, entry, stop),
            )
            folder.measure()
            note_done(request.scope, model=entry.model, scale=entry.scale)
            binary = head is not None
            kind = "application/octet-stream" if binary else "application/json"
            headers = {JSON_LENGTH: str(head)} if binary else {}
            return FileAnswer(path, folder, kind, headers)
        except BaseException:
            folder.close()
            raise

    def _find(self, name: str, version: str) -> Entry:
        entry = self._names.get(name)
        if entry is None or version != _VERSION:
            known = ", ".join(self._names)
            raise RefusedError(404, f"no such model or version; there are, version 1: {known}")
        return entry

    def _answer(
        self, body: Path, json_length: str | None, name: str, entry: Entry, stop: Stop
    ) -> tuple[Path, int | None]:
        """Write the answer; its path, and how many of its bytes are JSON if it is binary."""
        limits = self._parts.limits
        request = read_request(body, json_length, entry.scale, limits)
        batch, channels, height, width = request.pictures.shape
        shape = (batch, channels, height * entry.scale, width * entry.scale)
        head = answer_head(request, name, shape, limits=limits)
        results = self._enlarge(request, entry, stop)
        self._parts.metrics.result(entry.model, entry.scale, batch * shape[2] * shape[3])
        path = body.with_name("answer")
        if not request.binary:
            head["outputs"][0]["data"] = results.reshape(-1).tolist()
            path.write_text(json.dumps(head), encoding="utf-8")
            return path, None
        text = json.dumps(head).encode()
        with path.open("wb") as file:
            file.write(text)
            file.write(np.ascontiguousarray(results, "<f4").data)
        return path, len(text)

    def _enlarge(self, request: TensorRequest, entry: Entry, stop: Stop) -> FloatNCHW:
        upscaler = self._parts.models.open(entry.model, entry.scale)

        def enlarge(picture: Pixels) -> Pixels:
            rows: Pixels = np.ascontiguousarray(picture.transpose(1, 2, 0))
            return upscaler(rows, lambda _: stop.check()).transpose(2, 0, 1)

        # Side by side, so that the engine gets them together.
        with ThreadPoolExecutor(min(len(request.pictures), _ABREAST)) as threads:
            results = list(threads.map(enlarge, request.pictures))
        return np.stack(results).astype(np.float32, copy=False)
