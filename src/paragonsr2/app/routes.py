"""Files in and out of the page, beside gradio: raw bodies in, exact bytes out."""

from __future__ import annotations

import mimetypes
from pathlib import Path

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import BaseRoute, Route

from paragonsr2.app.page_files import PageFiles, harmless_name
from paragonsr2.app.workshop import suffix_of
from paragonsr2.errors import InputError, OutputError
from paragonsr2.web.site import page_files

_ASSETS = Path(__file__).parent / "assets"


def examples() -> dict[str, Path]:
    """Example images by name, from the installed package or from the repository."""
    folders = (_ASSETS.parent / "examples", Path(__file__).parents[3] / "examples")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        return {}
    return {p.name: p for p in sorted(folder.iterdir()) if p.suffix in (".png", ".jpg", ".webp")}


def routes(files: PageFiles) -> list[BaseRoute]:
    """Routes of uploads, previews and results (``/files``), and of what never changes.

    That is the page's assets (``/page``), and the page that works without this server (``/web``).
    """
    pictures = examples()

    async def upload(request: Request) -> Response:
        name = harmless_name(request.query_params.get("name", ""))
        size = int(request.headers.get("content-length", files.limits.upload_bytes))
        try:
            with files.write(name, suffix_of(name), size) as item:
                async with await anyio.open_file(item.path, "xb") as file:
                    async for chunk in request.stream():
                        await file.write(chunk)
        except (InputError, OutputError) as error:
            return JSONResponse({"message": str(error)}, status_code=422)
        except ClientDisconnect:
            return Response(status_code=400)
        return JSONResponse({"token": item.token, "name": item.name})

    async def shown(request: Request) -> Response:
        return _give(files, request, inline=True)

    async def result(request: Request) -> Response:
        return _give(files, request, inline=False)

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        known = {path.name: path for path in _ASSETS.iterdir()} | pictures
        if name not in known:
            return Response(status_code=404)
        return FileResponse(known[name], headers={"Cache-Control": "no-cache"})

    return [
        Route("/files", upload, methods=["POST"]),
        Route("/files/{token}/shown", shown),
        Route("/files/{token}/result", result),
        Route("/page/{name}", asset),
        Route("/web", _to_static_page),
        Route("/web/{name:path}", _static_page),
    ]


async def _to_static_page(_: Request) -> Response:
    return RedirectResponse("/web/")


def _static_page(request: Request) -> Response:
    # Its files are made from the bundled weights when they are first asked for.
    name = request.path_params["name"] or "index.html"
    content = page_files().get(name)
    if content is None:
        return Response(status_code=404)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


def _give(files: PageFiles, request: Request, *, inline: bool) -> Response:
    try:
        item = files.get(request.path_params["token"])
    except InputError as error:
        return PlainTextResponse(str(error), status_code=404)
    path = item.shown if inline else item.path
    if not path.is_file():
        return Response(status_code=404)
    # A browser must not render a visitor's file; results are always downloads.
    name = None if inline else item.name
    return FileResponse(path, filename=name, headers={"Cache-Control": "private, no-store"})
