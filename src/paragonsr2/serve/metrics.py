"""Numbers about the service, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """The metrics of one service, in a registry of their own.

    Args:
        waiting: tells how many pictures are running or waiting.
        jobs: tells how many jobs are queued or running.
        disk: tells how many bytes the service's files have.
    """

    def __init__(
        self, waiting: Callable[[], float], jobs: Callable[[], float], disk: Callable[[], float]
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "paragonsr2_requests", "Answered requests.", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "paragonsr2_request_seconds",
            "From the headers of a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._received = Counter(
            "paragonsr2_received_bytes", "Bytes of bodies.", registry=self.registry
        )
        self._pixels = Counter(
            "paragonsr2_result_pixels",
            "Pixels of results.",
            ("model", "scale"),
            registry=self.registry,
        )
        self._together = Histogram(
            "paragonsr2_tiles_together",
            "Tiles in one call of the engine.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        for name, help_text, ask in (
            ("paragonsr2_pictures_open", "Pictures that run or wait.", waiting),
            ("paragonsr2_jobs_open", "Jobs that run or wait.", jobs),
            ("paragonsr2_disk_bytes", "Bytes of all files of the service.", disk),
        ):
            Gauge(name, help_text, registry=self.registry).set_function(ask)

    def request(self, route: str, status: int, seconds: float, received: int) -> None:
        """Count an answered request; ``route`` is one of the service's own, or ``none``."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._received.inc(received)

    def result(self, model: str, scale: int, pixels: int) -> None:
        """Count a result."""
        self._pixels.labels(model, str(scale)).inc(pixels)

    def together(self, tiles: int) -> None:
        """Count a call of the engine."""
        self._together.observe(tiles)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
