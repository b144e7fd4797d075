"""Who enlarges the files of ``paragonsr2 upscale``: this process or a cluster, by which model."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from paragonsr2.cli.cluster import Cluster
    from paragonsr2.upscale.pictures import PictureOptions
    from paragonsr2.upscale.task import Outcome, Progress, Task
    from paragonsr2.upscale.upscaler import EngineFacts, Upscaler, UpscalerOptions
    from paragonsr2.upscale.upscaler import TileOption as TileValue
    from paragonsr2.upscale.video import Temporal, VideoOptions
    from paragonsr2.weights.metadata import BackendName, Precision


@dataclass(frozen=True)
class Engine:
    """The network and how it runs."""

    model: str
    scale: int | None
    backend: BackendName
    device: str
    precision: Precision
    tile: TileValue
    ensemble: bool
    trust_model: bool
    unchecked: bool

    def of(self, model: str) -> Engine:
        """The same with another model."""
        return replace(self, model=model)

    def shares(
        self, tasks: Sequence[Task], facts: EngineFacts, pictures: PictureOptions
    ) -> dict[str, list[Task]]:
        """The tasks by the names of the models that do them.

        Args:
            tasks: files to enlarge.
            facts: of the opened model.
            pictures: whether results are made anew, and the largest frame that is decoded.
        """
        from paragonsr2.upscale.by_file import suited_to
        from paragonsr2.upscale.task import is_newer
        from paragonsr2.weights.purposes import AUTO

        if self.model != AUTO:
            return {facts.model: list(tasks)}
        shares: dict[str, list[Task]] = {}
        for task in tasks:
            model = facts.model
            # A clip is not decoded to choose a model for what will be skipped.
            if pictures.overwrite or not is_newer(task.target, task.source):
                model = suited_to(task.source, facts.scale, max_pixels=pictures.max_pixels)
            shares.setdefault(model, []).append(task)
        return shares

    @contextmanager
    def opened(self, temporal: Temporal, cluster: Cluster | None) -> Generator[Doer]:
        """Load the network; what is missing for videos is reported now, not at the first clip."""
        options: UpscalerOptions = {
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "tile": self.tile,
            "ensemble": self.ensemble,
            "trust_model": self.trust_model,
            "check_results": not self.unchecked,
        }
        from paragonsr2.weights.purposes import AUTO, USUAL

        model = USUAL if self.model == AUTO else self.model
        if cluster is not None:
            opened = cluster.opened(model, self.scale, options, temporal)
            with opened as workers:
                yield workers
            return
        from paragonsr2.upscale.upscaler import Upscaler
        from paragonsr2.upscale.video import open_steadier

        upscaler = Upscaler(model, self.scale, **options)
        open_steadier(temporal, upscaler.scale)
        yield _Here(upscaler)


class Doer(Protocol):
    """Who does the work."""

    @property
    def facts(self) -> EngineFacts:
        """The engine."""
        ...

    def running(
        self,
        tasks: Sequence[Task],
        pictures: PictureOptions,
        clips: VideoOptions,
        progress: Progress,
    ) -> AbstractContextManager[Generator[Outcome]]:
        """The outcomes of the tasks, in order, as the work goes on."""
        ...


class _Here:
    """This process does the work."""

    def __init__(self, upscaler: Upscaler) -> None:
        self.facts, self._upscaler = upscaler.facts, upscaler

    def running(
        self,
        tasks: Sequence[Task],
        pictures: PictureOptions,
        clips: VideoOptions,
        progress: Progress,
    ) -> AbstractContextManager[Generator[Outcome]]:
        """See :class:`Doer`."""
        from paragonsr2.upscale.job import run_tasks

        return closing(
            run_tasks(
                tasks,
                self._upscaler,
                overwrite=pictures.overwrite,
                strict=pictures.strict,
                max_pixels=pictures.max_pixels,
                quality=pictures.quality,
                video=clips,
                progress=progress,
            )
        )
