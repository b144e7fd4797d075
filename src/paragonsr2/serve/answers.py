"""Answers that are files, and bodies that become files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from pathlib import Path

import anyio
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from paragonsr2.errors import RefusedError
from paragonsr2.serve.spool import SpoolFolder

_CHUNK = 1 << 18

#: Most bytes of a multipart field that is not a file, and most of those fields.
_FIELD_BYTES, _FIELDS = 1024, 16


class FileAnswer(Response):
    """A whole file, whose folder is removed when it was sent or the client has left.

    Args:
        path: the file.
        folder: its folder.
        media_type: of the file.
        headers: further headers.
    """

    def __init__(
        self, path: Path, folder: SpoolFolder, media_type: str, headers: Mapping[str, str]
    ) -> None:
        self._path, self._folder = path, folder
        self._size = path.stat().st_size
        length = {"Content-Length": str(self._size)}
        super().__init__(headers={**headers, **length}, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it."""
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            async with await anyio.open_file(self._path, "rb") as file:
                left = self._size
                while left > 0:
                    chunk = await file.read(min(_CHUNK, left))
                    if not chunk:
                        raise OSError(f"{self._path} was cut short while it was sent")
                    left -= len(chunk)
                    more = left > 0
                    await send({"type": "http.response.body", "body": chunk, "more_body": more})
        finally:
            self._folder.close()


async def receive_file(
    request: Request, folder: SpoolFolder, field: str
) -> tuple[Path, dict[str, str]]:
    """Write the body of a request, or a file in its multipart form, into ``folder``.

    Args:
        request: whose body has not been read.
        folder: where to; it counts the bytes.
        field: name of the file's field in a form.

    Returns:
        The file, and the other fields of the form; ``name`` among them is the file's own name.

    Raises:
        RefusedError: the body is empty, too large or too slow, or the form has not one such file.
    """
    path = folder.path / "body"
    chunks, fields = _counted(request, folder), dict[str, str]()
    try:
        if _is_form(request):
            count = await _write_form(request, chunks, path, field, fields)
        else:
            count = await _write(chunks, path)
    except ClientDisconnect:
        raise RefusedError(400, "the client left before the body had arrived") from None
    if count == 0:
        raise RefusedError(422, f"the {field} is empty")
    return path, fields


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def _counted(request: Request, folder: SpoolFolder) -> AsyncGenerator[bytes]:
    async for chunk in request.stream():
        folder.grow(len(chunk))
        yield chunk


async def _write(chunks: AsyncIterable[bytes], path: Path) -> int:
    count = 0
    async with await anyio.open_file(path, "xb") as file:
        async for chunk in chunks:
            count += await file.write(chunk)
    return count


async def _write_form(
    request: Request,
    chunks: AsyncGenerator[bytes],
    path: Path,
    field: str,
    fields: dict[str, str],
) -> int:
    parser = MultiPartParser(
        request.headers, chunks, max_files=1, max_fields=_FIELDS, max_part_size=_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RefusedError(400, f"the multipart form cannot be read: {error.message}") from None
    try:
        fields.update({k: value for k, value in form.multi_items() if isinstance(value, str)})
        upload = form.get(field)
        if not isinstance(upload, UploadFile):
            raise RefusedError(422, f"the form has no file in its field '{field}'")
        fields.setdefault("name", upload.filename or "")
        return await _write(_pieces(upload), path)
    finally:
        await form.close()


async def _pieces(upload: UploadFile) -> AsyncGenerator[bytes]:
    while chunk := await upload.read(_CHUNK):
        yield chunk
