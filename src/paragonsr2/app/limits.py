"""What the page gives to a visitor at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one server; every one is a flag of ``paragonsr2 app``.

    Attributes:
        upload_bytes: of one uploaded file.
        disk_bytes: of all uploads and results together; the oldest idle ones make room.
        result_pixels: of one result, or of one frame of it.
        job_seconds: of one job; checked after every tile.
        waiting: jobs in the queue, beside the one that runs.
        keep_seconds: from the last use of a file until it is removed.
    """

    upload_bytes: int = 200 * 10**6
    disk_bytes: int = 4 * 10**9
    result_pixels: int = 400 * 10**6
    job_seconds: float = 600.0
    waiting: int = 16
    keep_seconds: float = 1800.0
