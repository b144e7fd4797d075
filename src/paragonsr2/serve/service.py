"""The service: its parts, its routes and its life."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from paragonsr2.errors import EnvironmentProblem, ParagonError, RefusedError, UsageError
from paragonsr2.files import is_full
from paragonsr2.serve.guard import Guard, refuse
from paragonsr2.serve.inference import InferenceRoutes
from paragonsr2.serve.job_routes import JobRoutes
from paragonsr2.serve.job_store import JobStore
from paragonsr2.serve.limits import Limits
from paragonsr2.serve.logs import LOGGER
from paragonsr2.serve.metrics import Metrics
from paragonsr2.serve.models import Engine, Models
from paragonsr2.serve.parts import Parts
from paragonsr2.serve.pictures import PictureRoutes
from paragonsr2.serve.preview_routes import PreviewRoutes
from paragonsr2.serve.queueing import OutOfTimeError, PictureQueue
from paragonsr2.serve.runner import JobRunner
from paragonsr2.serve.spool import Spool, no_room
from paragonsr2.version import __version__

#: Seconds between two sweeps for jobs that ended long ago.
_SWEEP = 30.0

_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)

_ABOUT = (
    "Enlarges pictures and clips 2, 3, 4 or 8 times. Errors are JSON: an object whose `error` says "
    "what is wrong."
)


class Service:
    """One service; closing it is the business of :attr:`app`'s lifespan.

    Args:
        folder: where its files and its jobs are kept.
        limits: what it takes.
        engine: how networks run.
        local_only: the server listens on a loopback address.
        token: that requests must bring; empty for none.
        pages: further routes, for people; they are not part of the description.

    Attributes:
        app: the ASGI application.

    Raises:
        UsageError: the folder cannot be written, or another service uses it.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        engine: Engine,
        *,
        local_only: bool = True,
        token: str = "",
        pages: Sequence[BaseRoute] = (),
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            spool = Spool(folder / "files", limits.disk_bytes)
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"cannot use {folder} ({reason}); give another --folder") from error
        store, queue = JobStore(folder / "jobs.sqlite"), PictureQueue(limits)
        metrics = Metrics(
            lambda: queue.running_or_waiting, store.open_jobs, lambda: float(spool.used)
        )
        models = Models(engine, limits, metrics.together)
        runner = JobRunner(store, spool, models, limits)
        if limits.drop_oldest:
            spool.make_room = runner.forget_oldest
        self.parts = Parts(limits, models, queue, spool, store, runner, metrics)
        self._is_ready = False
        self.app: ASGIApp = Guard(
            self._application(token, pages), limits, metrics, local_only=local_only, token=token
        )

    def _application(self, token: str, pages: Sequence[BaseRoute]) -> FastAPI:
        # The guard checks the token; this tells the description to ask for it.
        scheme = [Depends(HTTPBearer(auto_error=False))] if token else None
        app = FastAPI(
            title="ParagonSR2",
            version=__version__,
            description=_ABOUT,
            lifespan=self._lifespan,
            docs_url=None,
            redoc_url=None,
            dependencies=scheme,
        )
        app.include_router(PictureRoutes(self.parts).router())
        jobs = JobRoutes(self.parts)
        app.include_router(jobs.router())
        app.include_router(PreviewRoutes(self.parts, jobs).router())
        app.include_router(InferenceRoutes(self.parts, lambda: self._is_ready).router())
        for path, answer in (
            ("/healthz", self.healthz),
            ("/readyz", self.readyz),
            ("/metrics", self.metrics),
        ):
            app.add_api_route(path, answer, methods=["GET"], tags=["operation"])
        app.add_api_route("/docs", self.docs, methods=["GET"], include_in_schema=False)
        # The files of Swagger UI come from a package, because the page must work offline.
        app.mount("/docs/assets", StaticFiles(directory=str(files("fastapi_offline") / "static")))
        app.router.routes.extend(pages)
        app.add_exception_handler(ParagonError, _refused)
        app.add_exception_handler(RequestValidationError, _refused)
        app.add_exception_handler(HTTPException, _refused)
        app.add_exception_handler(OSError, _perhaps_full)
        app.add_exception_handler(sqlite3.Error, _perhaps_full)
        app.add_exception_handler(Exception, _broken)
        return app

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncGenerator[None]:
        await run_in_threadpool(self.parts.runner.start)
        sweeper = asyncio.create_task(self._sweep())
        self._is_ready = True
        yield
        self._is_ready = False
        sweeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweeper
        await run_in_threadpool(self.parts.queue.close)
        await run_in_threadpool(self.parts.runner.close)
        self.parts.store.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            try:
                await run_in_threadpool(self.parts.runner.expire)
            except sqlite3.Error:
                LOGGER.exception("the jobs cannot be read or written")

    async def healthz(self) -> dict[str, str]:
        """The service answers."""
        return {"status": "alive"}

    async def readyz(self) -> JSONResponse:
        """Whether the service takes requests."""
        if self._is_ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "starting or stopping"}, 503)

    async def metrics(self) -> Response:
        """Numbers for Prometheus."""
        text = await run_in_threadpool(self.parts.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4")

    async def docs(self) -> HTMLResponse:
        """This description, to try it."""
        page = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="ParagonSR2",
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon.png",
        )
        page.headers["Content-Security-Policy"] = _DOCS_POLICY
        return page


async def _refused(request: Request, error: Exception) -> Response:
    """An expected error as an answer."""
    return await refuse(_refusal(error), request.scope, request.scope["state"]["body"])


def _refusal(error: Exception) -> RefusedError:
    if isinstance(error, RefusedError) or is_full(error):
        return error if isinstance(error, RefusedError) else no_room()
    if isinstance(error, OutOfTimeError):
        return RefusedError(504, str(error))
    if isinstance(error, EnvironmentProblem):
        return RefusedError(500, str(error))
    if isinstance(error, HTTPException):
        return RefusedError(error.status_code, str(error.detail).lower())
    if isinstance(error, RequestValidationError):
        first: dict[str, Any] = dict(error.errors()[0])
        place = ".".join(str(part)[:40] for part in first["loc"][1:])
        return RefusedError(422, f"{place}: {first['msg']}")
    return RefusedError(422, str(error))


async def _perhaps_full(request: Request, error: Exception) -> Response:
    """A full disk as an answer."""
    code = getattr(error, "sqlite_errorcode", None)
    if code != sqlite3.SQLITE_FULL and not is_full(error):
        raise error
    return await refuse(no_room(), request.scope, request.scope["state"]["body"])


async def _broken(_: Request, __: Exception) -> Response:
    """An unexpected error as an answer; its traceback is logged by the server."""
    return JSONResponse({"error": "an error in the service; its log has more"}, 500)
