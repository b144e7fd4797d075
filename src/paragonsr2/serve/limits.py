"""Limits of the service."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one service; most are flags of ``paragonsr2 serve``.

    Attributes:
        body_bytes: size of the body of one request.
        json_bytes: size of the JSON of one tensor request, or of its answer.
        disk_bytes: size of all uploads, running jobs and results together. What is received
            beyond it is refused.
        result_pixels: pixels of one result, all pages together, or of one frame of a clip.
        tensor_pixels: pixels of one tensor that is a result; it is held in memory.
        seconds: from the moment a picture was received to the end of its computation, checked
            after every tile.
        workers: pictures that are read, computed and written at the same time.
        waiting: pictures that may wait for a worker.
        together: tiles of one size that the engine may compute in one call; None for 8 where that
            changes no bit of the result, and 1 elsewhere.
        models: opened models to keep.
        requests: bodies that may be arriving, and answers that may be leaving, at the same time.
        patience: seconds in which the headers of a request must arrive, and after which
            ``least_rate`` holds.
        least_rate: bytes per second at which a client must send, and take its answer.
        jobs: jobs that may be queued or running.
        job_seconds: duration of one run of a job, checked after every tile or frame.
        keep_seconds: time after its end at which a job and its result are removed.
        drop_oldest: drop the oldest results when the disk is full; else new files are refused.
    """

    body_bytes: int = 100 * 10**6
    json_bytes: int = 2 * 10**6
    disk_bytes: int = 8 * 10**9
    result_pixels: int = 200 * 10**6
    tensor_pixels: int = 24 * 10**6
    seconds: float = 60.0
    workers: int = 3
    waiting: int = 32
    together: int | None = None
    models: int = 4
    requests: int = 64
    patience: float = 10.0
    least_rate: float = 10_000.0
    jobs: int = 16
    job_seconds: float = 6 * 3600.0
    keep_seconds: float = 24 * 3600.0
    drop_oldest: bool = False
