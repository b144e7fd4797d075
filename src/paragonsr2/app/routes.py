"""The routes of the page: its files, what it offers, and the page that works without a server."""

from __future__ import annotations

import mimetypes
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from paragonsr2.clips.codecs import CODECS, DEFAULT_QUALITY
from paragonsr2.clips.container import VIDEO_SUFFIXES
from paragonsr2.errors import RefusedError, WeightsError
from paragonsr2.images.formats import FORMATS, READABLE, WRITABLE
from paragonsr2.images.names import DEFAULT_QUALITY as PICTURE_QUALITY
from paragonsr2.serve.limits import Limits
from paragonsr2.web.site import page_files

#: Built from ``web/`` of the repository by ``make web``.
PAGE = Path(__file__).parent / "page"

#: Kinds of file that a machine's own table may call otherwise, and browsers then refuse.
_KINDS = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css"}

#: The page loads nothing from, and sends nothing to, any other host.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)

#: The page without a server computes itself, in WebAssembly.
_WEB_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob:; "
    "media-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)


def page_routes(limits: Limits, *, local: bool) -> list[BaseRoute]:
    """The routes of the page.

    Args:
        limits: of the service behind it.
        local: only this machine can reach the page; the page then says so.
    """

    async def about(_: Request) -> Response:
        return JSONResponse(_about(limits, local=local))

    return [
        Route("/", _index),
        Route("/page/about.json", about),
        Route("/page/{name}", _asset),
        Route("/web", _to_static_page),
        Route("/web/{name:path}", _static_page),
    ]


def examples() -> dict[str, Path]:
    """Example images by name, from the installed package or from the repository."""
    folders = (PAGE.parent / "examples", Path(__file__).parents[3] / "examples")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        return {}
    return {p.name: p for p in sorted(folder.iterdir()) if p.suffix in (".png", ".jpg", ".webp")}


@cache
def _assets() -> dict[str, Path]:
    built = {path.name: path for path in PAGE.iterdir()} if PAGE.is_dir() else {}
    if "index.html" not in built:
        raise WeightsError("the package lacks the page; reinstall, or build it: make web")
    return built | examples()


def _about(limits: Limits, *, local: bool) -> dict[str, Any]:
    return {
        "local": local,
        "upload_bytes": limits.body_bytes,
        "accept": sorted(READABLE | VIDEO_SUFFIXES),
        "clips": sorted(VIDEO_SUFFIXES),
        "reads": [form.title for form in FORMATS.values()],
        "formats": {name: form.title for name, form in WRITABLE.items()},
        "codecs": [name for name, row in CODECS.items() if not row.hardware],
        "picture_quality": PICTURE_QUALITY,
        "clip_quality": DEFAULT_QUALITY,
        "examples": list(examples()),
    }


def _index(_: Request) -> Response:
    return _give(_assets()["index.html"].read_bytes(), "index.html", _POLICY)


def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    path = _assets().get(name)
    if path is None:
        raise RefusedError(404, "not found")
    return _give(path.read_bytes(), name, _POLICY)


async def _to_static_page(_: Request) -> Response:
    return RedirectResponse("/web/")


def _static_page(request: Request) -> Response:
    # Its files are made from the bundled weights when they are first asked for.
    name = request.path_params["name"] or "index.html"
    content = page_files().get(name)
    if content is None:
        raise RefusedError(404, "not found")
    return _give(content, name, _WEB_POLICY)


def _give(content: bytes, name: str, policy: str) -> Response:
    kind = _KINDS.get(Path(name).suffix) or mimetypes.guess_type(name)[0]
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": policy}
    return Response(content, media_type=kind or "application/octet-stream", headers=headers)
