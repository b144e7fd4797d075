"""The guard of the service: everything that holds for every request, before any route sees it."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paragonsr2.errors import RefusedError
from paragonsr2.serve.limits import Limits
from paragonsr2.serve.logs import log
from paragonsr2.serve.metering import BodyMeter, PatientSend, too_large
from paragonsr2.serve.metrics import Metrics
from paragonsr2.serve.strangers import foreign

#: What answers without a token: whether the service lives, and how to use it.
_OPEN = frozenset(
    {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"}
)
_OPEN_FOLDER = "/docs/"

#: No answer is a page that runs anything, but those that bring a policy of their own.
_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"

_LOGGED_PATH = 200


class Guard:
    """ASGI middleware around the whole service.

    It refuses requests of other sites, without the token, with a contradictory or too large
    length, or with a compressed body; meters the body and the answer; adds headers; and logs and
    counts every request.

    Args:
        app: the application behind it.
        limits: of the service.
        metrics: count the requests.
        local_only: the server listens on a loopback address.
        token: that every request must bring; empty for none.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, metrics: Metrics, *, local_only: bool, token: str
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._local_only, self._token = local_only, token.encode()
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sender = PatientSend(send, self._limits)
        answer = _Answer(scope, sender)
        body = BodyMeter(receive, self._limits)
        self._open += 1
        try:
            refusal = self._refusal(scope)
            if refusal is None:
                scope["state"] = {**scope.get("state", {}), "body": body}
                await self._app(scope, body, answer)
            else:
                response = await refuse(refusal, scope, body)
                await response(scope, body, answer)
        except Exception:
            # A client who takes nothing is no error, whatever the layers in between make of it.
            if not sender.gave_up:
                raise
            answer.status = 499  # uvicorn closes the connection of an incomplete answer
        except asyncio.CancelledError:
            # Only a server that stops, and has waited long enough, cancels a request.
            if not answer.begun_to_send:
                stopping = {"error": "the service is stopping; try again later"}
                response = JSONResponse(stopping, 503, {"Connection": "close"})
                await response(scope, body, answer)
        finally:
            self._open -= 1
            self._count(scope, answer, body)

    def _count(self, scope: Scope, answer: _Answer, body: BodyMeter) -> None:
        seconds = time.monotonic() - answer.begun
        route = str(getattr(scope.get("route"), "path", "none"))
        self._metrics.request(route, answer.status, seconds, body.received)
        client = scope.get("client")
        log(
            "request",
            id=answer.id,
            client=client[0] if client else "",
            method=scope["method"],
            path=scope["path"][:_LOGGED_PATH],
            status=answer.status,
            seconds=round(seconds, 4),
            received=body.received,
            sent=answer.sent,
            result=scope.get("state", {}).get("done"),
        )

    def _refusal(self, scope: Scope) -> RefusedError | None:
        headers, path = Headers(scope=scope), scope["path"]
        stranger = foreign(headers, local_only=self._local_only)
        if stranger is not None:
            return stranger
        if not (path in _OPEN or path.startswith(_OPEN_FOLDER)) and not self._is_known(headers):
            return RefusedError(401, "this service needs a token: Authorization: Bearer TOKEN")
        if scope["method"] == "POST" and self._open > self._limits.requests:
            return RefusedError(429, "too many requests at the same time; try again later", 1)
        return self._refusal_of_body(headers)

    def _refusal_of_body(self, headers: Headers) -> RefusedError | None:
        length = headers.get("content-length")
        if length is not None and "transfer-encoding" in headers:
            return RefusedError(400, "the body has a length and is chunked; send one of the two")
        if length is not None and int(length) > self._limits.body_bytes:
            return too_large(self._limits)
        if headers.get("content-encoding", "identity") != "identity":
            return RefusedError(415, "send the body without Content-Encoding")
        return None

    def _is_known(self, headers: Headers) -> bool:
        if not self._token:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.encode(), self._token)


async def refuse(error: RefusedError, scope: Scope, body: BodyMeter) -> JSONResponse:
    """The answer that refuses a request.

    Args:
        error: why, and the status.
        scope: of the request.
        body: of the request. What has not arrived is read if that is little; else the connection
            is closed after the answer.
    """
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    given = Headers(scope=scope)
    if error.status != 408 and "expect" not in given:
        await body.drain(int(given.get("content-length", "0")))
    if not body.complete:
        headers["Connection"] = "close"
    return JSONResponse({"error": str(error)}, error.status, headers)


class _Answer:
    """Sends the answer with the service's headers, and remembers what it was.

    Attributes:
        id: of the request; the client's own ``X-Request-ID`` if it is a plain word.
        status: of the answer; 499 while there is none.
        sent: bytes of the body.
        begun: time of the request, in seconds of the monotonic clock.
        begun_to_send: the client has been sent the status.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        given = Headers(scope=scope).get("x-request-id", "")
        plain = given.replace("-", "").isalnum() and given.isascii() and len(given) <= 64
        self.id = given if plain else secrets.token_hex(8)
        self.status, self.sent, self.begun = 499, 0, time.monotonic()
        self.begun_to_send = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.begun_to_send = message["status"], True
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.id
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers.setdefault("Content-Security-Policy", _POLICY)
            headers.setdefault("Cache-Control", "no-store")
        self.sent += len(message.get("body", b""))
        await self._send(message)


def note_done(scope: Scope, **fields: Any) -> None:
    """Add fields to the log of a request."""
    scope["state"]["done"] = fields
