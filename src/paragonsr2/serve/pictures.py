"""``POST /v1/upscale``: a picture in, the enlarged picture out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from paragonsr2.errors import RefusedError
from paragonsr2.images.formats import (
    FORMATS,
    SIGNATURE_BYTES,
    WRITABLE,
    ImageFormat,
    format_of,
    recognise,
)
from paragonsr2.images.names import DEFAULT_QUALITY, ImageFormatName
from paragonsr2.serve.answers import FileAnswer, receive_file
from paragonsr2.serve.choice import Choice, has_dial, offered, purpose, word
from paragonsr2.serve.guard import note_done
from paragonsr2.serve.names import result_suffix
from paragonsr2.serve.parts import Parts
from paragonsr2.serve.queueing import Stop
from paragonsr2.serve.telling import told, without_paths
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Outcome, Task, TaskProgress
from paragonsr2.weights.catalogue import Entry, entries
from paragonsr2.weights.purposes import AUTO

Form = TypeVar("Form", bound=BaseModel)

#: A wish of pictures and of jobs.
Strength = Annotated[
    float | None,
    Field(
        ge=0,
        le=1,
        description="From the faithful model (0) to the chosen one (1); for models with a dial.",
    ),
]


class UpscaleForm(BaseModel):
    """What the client wants; in the address or, in a multipart form, in its fields."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(AUTO, description="One of those that GET /v1/models lists.")
    scale: int = Field(2, description="Enlargement: 2, 3, 4 or 8, as the model offers.")
    format: Literal["keep", ImageFormatName] = Field(
        "keep", description="Format of the result; keep is that of the picture."
    )
    quality: int = Field(
        DEFAULT_QUALITY, ge=1, le=100, description="Of lossy formats; 100 is lossless in some."
    )
    strength: Strength = None


def body_of(field: str, what: str, form: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI description of a file as the whole body, or in a form."""
    file = {"type": "string", "format": "binary", "description": what}
    options = form.model_json_schema()["properties"]
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": file},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {field: file, **options},
                        "required": [field],
                    }
                },
            },
        }
    }


class PictureRoutes:
    """Pictures in, pictures out."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["pictures"])
        router.add_api_route(
            "/v1/upscale",
            self.upscale,
            methods=["POST"],
            response_class=Response,
            responses={
                200: {"description": "The enlarged picture.", "content": {"image/*": {}}},
                413: {"description": "The body or the result would be too large."},
                422: {"description": "Not a picture, or a choice that is not offered."},
                429: {"description": "The queue is full; Retry-After says when to try again."},
                504: {"description": "The computation took too long."},
            },
            openapi_extra=body_of("image", "The picture.", UpscaleForm),
        )
        router.add_api_route("/v1/models", self.models, methods=["GET"])
        return router

    async def upscale(self, request: Request, query: Annotated[UpscaleForm, Query()]) -> Response:
        """Enlarge a picture; the result has the bytes that `paragonsr2 upscale` writes."""
        self._parts.queue.require_room()
        _choice(query).check()
        folder = self._parts.spool.folder()
        try:
            body, fields = await receive_file(request, folder, "image")
            fields.pop("name", None)
            form = with_fields(query, fields)
            choice = _choice(form)
            choice.check()
            task = _task(body, choice)
            choice = choice.of(task.source, self._parts.limits.result_pixels)
            outcome = await self._parts.queue.run(
                request.receive, lambda stop: self._enlarge(task, choice, form.quality, stop)
            )
            folder.measure()
            kind = WRITABLE[format_of(task.target)]
            headers = self._about(request, choice, outcome)
            answer = FileAnswer(task.target, folder, media_type(kind.suffixes[0]), headers)
        except BaseException:
            folder.close()
            raise
        return answer

    async def models(self) -> dict[str, Any]:
        """What `model` and `scale` may be."""
        about = {(entry.model, entry.scale): entry for entry in entries()}
        return {
            "models": [
                {"model": model, "scale": scale, **_facts(model, about.get((model, scale)))}
                for model, scales in offered().items()
                for scale in scales
            ]
        }

    def _enlarge(self, task: Task, choice: Choice, quality: int, stop: Stop) -> Outcome:
        most = self._parts.limits.result_pixels // choice.scale**2

        def report(_: TaskProgress) -> None:
            stop.check()

        outcome = run_task(
            task,
            self._parts.models.open(choice.opened, choice.scale),
            max_pixels=most,
            quality=quality,
            progress=report,
        )
        if outcome.error is not None:
            raise told(outcome.error, task, "the picture", most, choice.scale)
        return outcome

    def _about(self, request: Request, choice: Choice, outcome: Outcome) -> dict[str, str]:
        pixels = outcome.width * outcome.height * outcome.pages
        self._parts.metrics.result(choice.model, choice.scale, pixels)
        done: dict[str, str | int | float] = {
            "model": choice.opened,
            "scale": choice.scale,
            "backend": self._parts.models.open(choice.opened, choice.scale).backend.name,
            "width": outcome.width,
            "height": outcome.height,
            "pages": outcome.pages,
            "seconds": round(outcome.seconds, 4),
        }
        note_done(request.scope, **done)
        headers = {f"X-ParagonSR2-{name.title()}": str(value) for name, value in done.items()}
        if outcome.message:
            task = Task(outcome.source, outcome.target)
            note = without_paths(outcome.message, task, "the picture")
            headers["X-ParagonSR2-Note"] = quote(note, safe=" :;,()")
        return headers


def with_fields(query: Form, fields: Mapping[str, str]) -> Form:
    """The wishes of the address and of a multipart form together.

    Args:
        query: those of the address.
        fields: those of the form.

    Raises:
        RefusedError: a field is unknown or has a wrong value.
    """
    try:
        return type(query).model_validate({**query.model_dump(exclude_unset=True), **fields})
    except ValidationError as error:
        first = error.errors()[0]
        raise RefusedError(422, f"{_shown(first['loc'])}: {first['msg']}") from None


def _shown(place: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:40] for part in place)


def media_type(suffix: str) -> str:
    """The media type of an image file with a suffix from the table of formats."""
    name = next(name for name, form in FORMATS.items() if suffix in form.suffixes)
    return "image/jpeg" if name == "jpg" else f"image/{name}"


def kind_of(path: Path) -> ImageFormat | None:
    """The format of a picture, by its first bytes; None if it is not a picture."""
    with path.open("rb") as file:
        return recognise(file.read(SIGNATURE_BYTES))


def _task(body: Path, choice: Choice) -> Task:
    """Give the file the suffix of its kind, and name the result."""
    form = kind_of(body)
    if form is None:
        known = ", ".join(form.title for form in FORMATS.values())
        raise RefusedError(415, f"the body is not a picture in a known format ({known})")
    source = body.rename(body.with_name(f"source{form.suffixes[0]}"))
    return Task(source, source.with_name(f"result{result_suffix(source, choice.image_format)}"))


def _choice(form: UpscaleForm) -> Choice:
    return Choice(form.model, form.scale, form.format, form.strength)


def _facts(model: str, entry: Entry | None) -> dict[str, Any]:
    if entry is None:
        return {"kind": AUTO if model == AUTO else "classical", "purpose": purpose(model)}
    return {
        "kind": entry.kind,
        "purpose": purpose(model),
        "word": word(model),
        "dial": has_dial(model),
        "licence": entry.licence,
        "parameters": entry.parameters,
        "kmacs_per_pixel": entry.kmacs_per_pixel,
        "sha256": entry.file("onnx").sha256,
    }
