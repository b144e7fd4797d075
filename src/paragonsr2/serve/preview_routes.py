"""Previews: what any browser can show of any picture or clip."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from paragonsr2.errors import ImageTooLargeError, RefusedError
from paragonsr2.serve.answers import FileAnswer, receive_file
from paragonsr2.serve.job_routes import JobRoutes
from paragonsr2.serve.names import harmless_name
from paragonsr2.serve.parts import Parts
from paragonsr2.serve.preview import MediaSize, make_preview
from paragonsr2.serve.spool import SpoolFolder
from paragonsr2.variants import SCALES


class PreviewRoutes:
    """Pictures and clips in, PNG out; nothing is kept.

    Args:
        parts: of the service.
        jobs: whose results can be previewed.
    """

    def __init__(self, parts: Parts, jobs: JobRoutes) -> None:
        self._parts, self._jobs = parts, jobs

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["previews"])
        about: dict[int | str, dict[str, Any]] = {
            200: {"description": "The preview.", "content": {"image/png": {}}},
            422: {"description": "Not a picture or clip, or damaged."},
        }
        router.add_api_route(
            "/v1/preview",
            self.of_body,
            methods=["POST"],
            response_class=Response,
            responses=about,
        )
        router.add_api_route(
            "/v1/jobs/{job_id}/preview",
            self.of_result,
            methods=["GET"],
            response_class=Response,
            responses=about,
        )
        return router

    async def of_body(
        self, request: Request, name: Annotated[str, Query(max_length=1000)] = ""
    ) -> Response:
        """A PNG of the picture or clip that is the body; `name` tells a clip's container."""
        self._parts.queue.require_room()
        folder = self._parts.spool.folder()
        try:
            body, _ = await receive_file(request, folder, "file")
            source = body.rename(body.with_name(f"source{PurePath(harmless_name(name)).suffix}"))
            most = self._parts.limits.result_pixels // min(SCALES) ** 2
            return await self._preview(request, source, folder, most)
        except BaseException:
            folder.close()
            raise

    async def of_result(self, request: Request, job_id: str) -> Response:
        """A PNG of the result of a job that is done."""
        _, path = await self._jobs.find_result(job_id)
        folder = self._parts.spool.folder()
        try:
            return await self._preview(request, path, folder, self._parts.limits.result_pixels)
        except BaseException:
            folder.close()
            raise

    async def _preview(
        self, request: Request, source: Path, folder: SpoolFolder, most: int
    ) -> Response:
        target = folder.path / "preview.png"

        def make() -> MediaSize:
            try:
                return make_preview(source, target, max_pixels=most)
            except ImageTooLargeError as error:
                raise RefusedError(413, str(error)) from None

        size = await self._parts.queue.run(request.receive, lambda _: make())
        folder.measure()
        headers = {
            "X-ParagonSR2-Width": str(size.width),
            "X-ParagonSR2-Height": str(size.height),
            "X-ParagonSR2-Pages": str(size.pages),
        }
        return FileAnswer(target, folder, "image/png", headers)
