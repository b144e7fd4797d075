"""Limits of the page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one server; each is a flag of ``paragonsr2 app``.

    Attributes:
        upload_bytes: size of one upload.
        disk_bytes: size of all uploads and results together. The least recently used files are
            removed to stay below it.
        result_pixels: pixels of one result, or of one frame of a clip.
        job_seconds: duration of one job, checked after every tile.
        waiting: length of the queue, without the job that runs.
        keep_seconds: time after its last use at which a file is removed.
    """

    upload_bytes: int = 200 * 10**6
    disk_bytes: int = 4 * 10**9
    result_pixels: int = 400 * 10**6
    job_seconds: float = 600.0
    waiting: int = 16
    keep_seconds: float = 1800.0
