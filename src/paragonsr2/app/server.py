"""The server: page, files and guard in one process, with a clean shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING

from paragonsr2.app.limits import Limits
from paragonsr2.app.page_files import PageFiles, remove_leftovers
from paragonsr2.errors import MissingExtraError
from paragonsr2.serve.listening import address_of, bind, is_loopback

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp

#: Seconds between two sweeps for idle files.
_SWEEP = 20.0

#: Seconds that open connections get when the server stops.
_GRACE = 2


def serve(host: str, port: int, limits: Limits) -> None:
    """Serve the page until the process is told to stop, then remove its files.

    Args:
        host: address to bind.
        port: port to bind; 0 chooses a free one.
        limits: of the server.

    Raises:
        MissingExtraError: gradio is not installed.
        UsageError: the address cannot be bound.
    """
    if find_spec("gradio") is None:
        raise MissingExtraError("the page", "app")
    with bind(host, port) as listener:
        remove_leftovers()
        files = PageFiles(limits)
        # By default, SIGTERM would end the process before the files are removed.
        signal.signal(signal.SIGTERM, _end)
        try:
            _run(files, listener, host)
        finally:
            files.close()


def _run(files: PageFiles, listener: socket.socket, host: str) -> None:
    app = build_app(files, host)
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=_GRACE, server_header=False
    )
    print(f"ParagonSR2 at {address_of(listener)}  (Ctrl-C ends it)", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def build_app(files: PageFiles, host: str) -> ASGIApp:
    """Build the ASGI application.

    Args:
        files: uploads and results; the caller closes it.
        host: address that the server will be bound to.
    """
    # gradio and its libraries read these on import.
    os.environ["GRADIO_TEMP_DIR"] = str(files.root / "gradio")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gradio as gr
    from fastapi import FastAPI
    from gradio.themes import Base

    from paragonsr2.app.guard import Guard
    from paragonsr2.app.page import HEAD, build_page
    from paragonsr2.app.routes import routes
    from paragonsr2.app.workshop import Workshop

    workshop = Workshop(files)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        sweeper = asyncio.create_task(_sweep(files))
        yield
        sweeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweeper
        await asyncio.to_thread(workshop.close)

    app = FastAPI(openapi_url=None, lifespan=lifespan, routes=routes(files))
    theme = Base(
        # Fonts of the visitor's system; gradio would load its own from Google.
        font=["ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
        primary_hue="teal",
        neutral_hue="slate",
        radius_size="lg",
    ).set(body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400")
    gr.mount_gradio_app(
        app,
        build_page(workshop, local=is_loopback(host)),
        path="/",
        theme=theme,
        head=HEAD,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        show_error=False,
    )
    return Guard(app, host, files.limits.upload_bytes)


async def _sweep(files: PageFiles) -> None:
    while True:
        await asyncio.sleep(_SWEEP)
        await asyncio.to_thread(files.sweep)


def _end(_: int, __: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)
