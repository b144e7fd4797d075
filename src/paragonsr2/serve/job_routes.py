"""``/v1/jobs``: clips, and pictures that take longer than a request should."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from paragonsr2.clips.codecs import CodecName
from paragonsr2.clips.container import VIDEO_SUFFIXES
from paragonsr2.clips.plan import CONTAINERS, ContainerName
from paragonsr2.errors import ParagonError, RefusedError
from paragonsr2.images.formats import FORMATS
from paragonsr2.images.names import ImageFormatName
from paragonsr2.serve.answers import receive_file
from paragonsr2.serve.choice import Choice
from paragonsr2.serve.job_store import Job
from paragonsr2.serve.names import harmless_name, result_name
from paragonsr2.serve.parts import Parts
from paragonsr2.serve.pictures import Strength, body_of, kind_of, media_type, with_fields
from paragonsr2.serve.preview import media_size
from paragonsr2.serve.runner import is_clip, noun, video_options
from paragonsr2.serve.spool import SpoolFolder
from paragonsr2.serve.telling import told
from paragonsr2.serve.zipping import zip_pieces
from paragonsr2.upscale.video import plan_video
from paragonsr2.weights.purposes import AUTO

#: Most results in one ZIP.
_MOST_RESULTS = 1000


class JobForm(BaseModel):
    """What the client wants; in the address or, in a multipart form, in its fields."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        "", max_length=1000, description="Name of the file; that of a clip tells its container."
    )
    model: str = Field(AUTO, description="One of those that GET /v1/models lists.")
    scale: int = Field(2, description="Enlargement: 2, 3, 4 or 8, as the model offers.")
    format: Literal["keep", ImageFormatName, ContainerName] = Field(
        "keep", description="Format of the result; keep is that of the picture or clip."
    )
    codec: CodecName | None = Field(None, description="Video codec; the clip's own if left out.")
    quality: int | None = Field(
        None, ge=1, le=100, description="Of lossy formats and codecs; each has its default."
    )
    strength: Strength = None


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
                413: {"description": "The body or the result would be too large."},
                415: {"description": "Not a picture, and not named as a clip."},
                422: {"description": "Damaged, or a choice that is not offered."},
                429: {"description": "Too many jobs; Retry-After says when to try again."},
            },
            openapi_extra=body_of("file", "The picture or clip.", JobForm),
        )
        router.add_api_route("/v1/jobs/{job_id}", self.status, methods=["GET"])
        router.add_api_route("/v1/jobs/{job_id}", self.cancel, methods=["DELETE"], status_code=204)
        router.add_api_route(
            "/v1/jobs/{job_id}/result", self.result, methods=["GET"], response_class=FileResponse
        )
        router.add_api_route(
            "/v1/results", self.results, methods=["GET"], response_class=StreamingResponse
        )
        return router

    async def start(self, request: Request, query: Annotated[JobForm, Query()]) -> JSONResponse:
        """Queue a picture or a clip. The answer has a secret `id`; who has it sees the result."""
        await run_in_threadpool(self._parts.runner.require_room)
        Choice(query.model, query.scale, strength=query.strength).check()
        folder = self._parts.spool.folder()
        try:
            body, fields = await receive_file(request, folder, "file")
            form = with_fields(query, {**fields, "name": query.name or fields.get("name", "")})
            name = _name_of(body, form)
            body.rename(self._parts.runner.source(folder.path, name))
            choice = Choice(form.model, form.scale, strength=form.strength)
            choice.check()
            job = Job(
                id=folder.path.name,
                name=name,
                model=choice.model,
                scale=form.scale,
                format=form.format,
                codec=form.codec or "",
                quality=form.quality,
                strength=form.strength,
                created=time.time(),
            )
            checked = await self._parts.queue.run(
                request.receive, lambda _: self._checked(job, choice, folder)
            )
            await run_in_threadpool(self._parts.runner.add, checked, folder)
        except BaseException:
            folder.close()
            raise
        place = f"/v1/jobs/{job.id}"
        return JSONResponse(self._about(checked), 202, {"Location": place})

    async def status(self, job_id: str) -> dict[str, Any]:
        """Where a job is: queued, running, done, failed or cancelled."""
        return self._about(await self._find(job_id))

    async def result(self, job_id: str) -> FileResponse:
        """The result of a job that is done."""
        job, path = await self.find_result(job_id)
        return FileResponse(
            path,
            media_type=None if is_clip(job.name) else media_type(path.suffix),
            filename=result_name(job.name, job.scale, path.suffix),
        )

    async def results(
        self,
        ids: Annotated[list[str], Query(alias="id", min_length=1, max_length=_MOST_RESULTS)],
    ) -> StreamingResponse:
        """The results of several jobs as one ZIP, which is not compressed."""
        found = [await self.find_result(job_id) for job_id in ids]
        files = [(result_name(job.name, job.scale, path.suffix), path) for job, path in found]
        return StreamingResponse(
            zip_pieces(files),
            media_type="application/zip",
            headers={"Content-Disposition": 'attachment; filename="paragonsr2.zip"'},
        )

    async def cancel(self, job_id: str) -> Response:
        """Cancel a job, or forget it and its result if it has ended."""
        job = await self._find(job_id)
        await run_in_threadpool(self._parts.runner.cancel, job)
        return Response(status_code=204)

    async def find_result(self, job_id: str) -> tuple[Job, Path]:
        """A job that is done, and its file.

        Raises:
            RefusedError: there is no such job (404), or it is not done (409).
        """
        job = await self._find(job_id)
        if job.state != "done":
            raise RefusedError(409, f"the job is {job.state}; it has no result")
        path = self._parts.runner.result(job)
        if not path.is_file():
            raise RefusedError(404, "the result has just been removed")
        return job, path

    async def _find(self, job_id: str) -> Job:
        job = await run_in_threadpool(self._parts.store.get, job_id)
        if job is None:
            raise RefusedError(404, "there is no such job, or not any more")
        return job

    def _checked(self, job: Job, choice: Choice, folder: SpoolFolder) -> Job:
        """Refuse at once what would fail later; choose the model that suits the file."""
        options = video_options(job, self._parts.limits)
        task = self._parts.runner.task(job, folder.path)
        try:
            if is_clip(job.name):
                plan_video(task.source, task.target, job.scale, options)
            else:
                media_size(task.source, max_pixels=options.max_pixels)
        except ParagonError as error:
            raise told(error, task, noun(job), options.max_pixels, job.scale) from None
        chosen = choice.of(task.source, self._parts.limits.result_pixels)
        return replace(job, model=chosen.model)

    def _size(self, job: Job) -> int | None:
        """Bytes of a job's result; None if there is none."""
        if job.state != "done":
            return None
        try:
            return self._parts.runner.result(job).stat().st_size
        except OSError:  # it has just been removed
            return None

    def _about(self, job: Job) -> dict[str, Any]:
        place, left = f"/v1/jobs/{job.id}", self._parts.runner.left(job)
        return {
            "id": job.id,
            "state": job.state,
            "share": round(self._parts.runner.share(job), 4),
            "left": None if left is None else round(left, 1),
            "name": job.name,
            "model": job.model,
            "strength": job.strength,
            "scale": job.scale,
            "width": job.width,
            "height": job.height,
            "pages": job.pages,
            "frames": job.frames,
            "seconds": round(job.seconds, 4),
            "backend": job.backend,
            "bytes": self._size(job),
            "message": job.message,
            "created": job.created,
            "ended": job.ended,
            "result": f"{place}/result" if job.state == "done" else None,
        }


def _name_of(body: Path, form: JobForm) -> str:
    """The source's name for display, with the suffix of its kind.

    Raises:
        RefusedError: it is neither a clip, by its name, nor a picture, by its first bytes; or the
            format or codec is one of the other kind.
        OptionError: a choice is not offered.
    """
    name = harmless_name(form.name)
    clip = is_clip(name)
    Choice(form.model, form.scale, "keep" if clip else form.format, form.strength).check()
    if clip:
        if form.format != "keep" and f".{form.format}" not in CONTAINERS:
            raise RefusedError(422, f"format: a clip cannot be saved as {form.format}")
        return name
    kind = kind_of(body)
    if kind is None:
        pictures = ", ".join(form.title for form in FORMATS.values())
        clips = ", ".join(sorted(VIDEO_SUFFIXES))
        raise RefusedError(
            415, f"not a picture ({pictures}); the name of a clip ends in one of {clips}"
        )
    if form.codec is not None:
        raise RefusedError(422, "codec: a picture has none")
    path = PurePath(name)
    return name if path.suffix.lower() in kind.suffixes else f"{path.stem}{kind.suffixes[0]}"
