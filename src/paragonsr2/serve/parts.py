"""What the routes of the service share."""

from __future__ import annotations

from dataclasses import dataclass

from paragonsr2.serve.job_store import JobStore
from paragonsr2.serve.limits import Limits
from paragonsr2.serve.metrics import Metrics
from paragonsr2.serve.models import Models
from paragonsr2.serve.queueing import PictureQueue
from paragonsr2.serve.runner import JobRunner
from paragonsr2.serve.spool import Spool


@dataclass(frozen=True)
class Parts:
    """The parts of one service.

    Attributes:
        limits: of the service.
        models: that are open.
        queue: of pictures and tensors.
        spool: folders of requests and jobs.
        store: the jobs.
        runner: runs the jobs.
        metrics: count what happens.
    """

    limits: Limits
    models: Models
    queue: PictureQueue
    spool: Spool
    store: JobStore
    runner: JobRunner
    metrics: Metrics
