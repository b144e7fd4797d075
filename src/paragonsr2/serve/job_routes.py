"""``/v1/jobs``: clips, which take longer than a request should."""

from __future__ import annotations

import time
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse, Response

from paragonsr2.clips.codecs import CodecName
from paragonsr2.clips.container import VIDEO_SUFFIXES
from paragonsr2.errors import ParagonError, RefusedError
from paragonsr2.serve.answers import receive_file
from paragonsr2.serve.choice import Choice
from paragonsr2.serve.job_store import Job
from paragonsr2.serve.names import harmless_name
from paragonsr2.serve.parts import Parts
from paragonsr2.serve.pictures import body_of, with_fields
from paragonsr2.serve.runner import video_options
from paragonsr2.serve.spool import SpoolFolder
from paragonsr2.serve.telling import told
from paragonsr2.upscale.video import plan_video


class JobForm(BaseModel):
    """What the client wants; in the address or, in a multipart form, in its fields."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        "", max_length=1000, description="Name of the clip; its suffix tells the container."
    )
    model: str = Field("realtime", description="One of those that GET /v1/models lists.")
    scale: int = Field(2, description="Enlargement: 2, 3, 4 or 8, as the model offers.")
    codec: CodecName | None = Field(None, description="Video codec; the clip's own if left out.")
    quality: int | None = Field(None, ge=1, le=100, description="Of lossy video.")


class JobRoutes:
    """Start, watch, fetch and cancel jobs."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["jobs"])
        router.add_api_route(
            "/v1/jobs",
            self.start,
            methods=["POST"],
            status_code=202,
            responses={
                422: {"description": "Not a clip, or a choice that is not offered."},
                429: {"description": "Too many jobs; Retry-After says when to try again."},
            },
            openapi_extra=body_of("clip", "The clip.", JobForm),
        )
        router.add_api_route("/v1/jobs/{job_id}", self.status, methods=["GET"])
        router.add_api_route("/v1/jobs/{job_id}", self.cancel, methods=["DELETE"], status_code=204)
        router.add_api_route(
            "/v1/jobs/{job_id}/result", self.result, methods=["GET"], response_class=FileResponse
        )
        return router

    async def start(self, request: Request, query: Annotated[JobForm, Query()]) -> JSONResponse:
        """Queue a clip. The answer has the job's secret `id`; who has it may see the result."""
        await run_in_threadpool(self._parts.runner.require_room)
        Choice(query.model, query.scale).check()
        folder = self._parts.spool.folder()
        try:
            body, fields = await receive_file(request, folder, "clip")
            form = with_fields(query, {**fields, "name": query.name or fields.get("name", "")})
            Choice(form.model, form.scale).check()
            name = _clip_name(form.name)
            body.rename(self._parts.runner.source(folder.path, name))
            job = Job(
                id=folder.path.name,
                name=name,
                model=form.model,
                scale=form.scale,
                codec=form.codec or "",
                quality=form.quality,
                created=time.time(),
            )
            await self._parts.queue.run(request.receive, lambda _: self._check(job, folder))
            await run_in_threadpool(self._parts.runner.add, job, folder)
        except BaseException:
            folder.close()
            raise
        place = f"/v1/jobs/{job.id}"
        return JSONResponse(self._about(job), 202, {"Location": place})

    async def status(self, job_id: str) -> dict[str, Any]:
        """Where a job is: queued, running, done, failed or cancelled."""
        return self._about(await self._find(job_id))

    async def result(self, job_id: str) -> FileResponse:
        """The enlarged clip of a job that is done."""
        job = await self._find(job_id)
        if job.state != "done":
            raise RefusedError(409, f"the job is {job.state}; it has no result")
        path = self._parts.runner.result(job)
        if not path.is_file():
            raise RefusedError(404, "the result has just been removed")
        return FileResponse(path, filename=f"{PurePath(job.name).stem}_x{job.scale}{path.suffix}")

    async def cancel(self, job_id: str) -> Response:
        """Cancel a job, or forget it and its result if it has ended."""
        job = await self._find(job_id)
        await run_in_threadpool(self._parts.runner.cancel, job)
        return Response(status_code=204)

    async def _find(self, job_id: str) -> Job:
        job = await run_in_threadpool(self._parts.store.get, job_id)
        if job is None:
            raise RefusedError(404, "there is no such job, or not any more")
        return job

    def _check(self, job: Job, folder: SpoolFolder) -> None:
        """Refuse at once what would fail later."""
        options = video_options(job, self._parts.limits)
        task = self._parts.runner.task(job, folder.path)
        try:
            plan_video(task.source, task.target, job.scale, options)
        except ParagonError as error:
            raise told(error, task, "the clip", options.max_pixels, job.scale) from None

    def _about(self, job: Job) -> dict[str, Any]:
        place = f"/v1/jobs/{job.id}"
        return {
            "id": job.id,
            "state": job.state,
            "share": round(self._parts.runner.share(job), 4),
            "name": job.name,
            "model": job.model,
            "scale": job.scale,
            "frames": job.frames,
            "message": job.message,
            "created": job.created,
            "ended": job.ended,
            "result": f"{place}/result" if job.state == "done" else None,
        }


def _clip_name(given: str) -> str:
    """The clip's name for display.

    Raises:
        RefusedError: its suffix is not that of a video.
    """
    name = harmless_name(given)
    if PurePath(name).suffix.lower() not in VIDEO_SUFFIXES:
        known = ", ".join(sorted(VIDEO_SUFFIXES))
        raise RefusedError(415, f"give the clip's name, with one of these suffixes: {known}")
    return name
