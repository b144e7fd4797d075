"""The guard of the page: allows only its own paths, its own origin and bodies of limited size."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paragonsr2.serve.listening import is_loopback
from paragonsr2.serve.strangers import foreign

#: The page loads nothing from, and sends nothing to, any other host.
#: gradio builds its templates with Function(), hence 'unsafe-eval'.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; "
    "form-action 'self'"
)

#: The gradio routes that the page needs. Uploads, proxies and remote calls are not among them.
_EXACT = frozenset(
    {
        "/",
        "/config",
        "/theme.css",
        "/favicon.ico",
        "/web",
        "/manifest.json",
        "/gradio_api/startup-events",
        "/gradio_api/queue/join",
        "/gradio_api/queue/data",
        "/gradio_api/cancel",
        "/gradio_api/reset",
        "/gradio_api/info",
    }
)
_BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/", "/page/", "/files", "/web/")

#: Largest body of any request but an upload: gradio's small JSON messages.
_SMALL_BODY = 64 * 1024


class Guard:
    """ASGI middleware that refuses what the page does not use.

    Args:
        app: the application behind it.
        host: address that the server is bound to. On a loopback address it answers only to
            loopback host names, which defeats DNS rebinding.
        upload_bytes: largest body of an upload.
    """

    def __init__(self, app: ASGIApp, host: str, upload_bytes: int) -> None:
        self.app = app
        self.local_only = is_loopback(host)
        self.upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        most = self.upload_bytes if scope["path"] == "/files" else _SMALL_BODY

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = _POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self.app(scope, _bounded(receive, most), guarded_send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        path: str = scope["path"]
        headers = Headers(scope=scope)
        stranger = foreign(headers, local_only=self.local_only)
        if stranger is not None:
            return PlainTextResponse(str(stranger), status_code=stranger.status)
        if not (path in _EXACT or _begins(path, _BELOW)):
            return PlainTextResponse("page not found", status_code=404)
        most = self.upload_bytes if path == "/files" else _SMALL_BODY
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > most:
            return PlainTextResponse(_too_large(most), status_code=413)
        return None


def _begins(path: str, starts: Iterable[str]) -> bool:
    return ".." not in path and any(path.startswith(start) for start in starts)


def _too_large(most: int) -> str:
    return f"the file is larger than {most / 1e6:.0f} MB, the most that this page takes"


def _bounded(receive: Receive, most: int) -> Receive:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise HTTPException(413, _too_large(most))
        return message

    return bounded
