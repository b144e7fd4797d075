"""Options of ``upscale`` that spread the work over a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from paragonsr2.cli.output import shown

if TYPE_CHECKING:
    from paragonsr2.cluster.pool import Pool
    from paragonsr2.upscale.pictures import PictureOptions
    from paragonsr2.upscale.task import Outcome, Progress, Task
    from paragonsr2.upscale.upscaler import UpscalerOptions
    from paragonsr2.upscale.video import Temporal, VideoOptions

_PANEL = "Cluster"

RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Spread the work over a Ray cluster: local, auto or ray://HOST:PORT.",
        rich_help_panel=_PANEL,
    ),
]
RayCpusOption = Annotated[
    float,
    typer.Option("--ray-cpus", min=0.01, help="Cores of each worker.", rich_help_panel=_PANEL),
]
RayGpusOption = Annotated[
    float,
    typer.Option(
        "--ray-gpus",
        min=0.0,
        help="GPUs of each worker; 0.5 lets two workers share one.",
        rich_help_panel=_PANEL,
    ),
]
RayWorkersOption = Annotated[
    int | None,
    typer.Option(
        "--ray-workers",
        min=1,
        help="Number of workers. Default: as many as the cluster has room for.",
        rich_help_panel=_PANEL,
    ),
]
RayTransferOption = Annotated[
    bool,
    typer.Option(
        "--ray-transfer",
        help="Send files through the cluster; without it, all machines must share the folders.",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True)
class Cluster:
    """Where the work is done, and what each worker takes of its machine."""

    address: str
    cpus: float
    gpus: float
    workers: int | None
    transfer: bool

    @contextmanager
    def opened(
        self, model: str, scale: int | None, options: UpscalerOptions, temporal: Temporal
    ) -> Generator[Workers]:
        """Start workers that hold a model.

        Args:
            model: name or path.
            scale: wanted enlargement.
            options: of the upscaler.
            temporal: whether frames of clips are steadied.
        """
        from paragonsr2.cluster.connect import connected
        from paragonsr2.cluster.job import model_path, transferred_model
        from paragonsr2.cluster.orders import Recipe
        from paragonsr2.cluster.pool import Pool, PoolOptions

        content = transferred_model(model) if self.transfer else None
        recipe = Recipe(model_path(model), scale, options, temporal, self.cpus)
        wanted = PoolOptions(self.cpus, self.gpus, self.workers)
        with (
            connected(self.address) as ray,
            closing(Pool(ray, recipe, wanted, content, _say)) as pool,
        ):
            yield Workers(pool, self.transfer)


class Workers:
    """The workers of a cluster do the work."""

    def __init__(self, pool: Pool, transfer: bool) -> None:
        self.facts, self._pool, self._transfer = pool.engine, pool, transfer

    @contextmanager
    def running(
        self,
        tasks: Sequence[Task],
        pictures: PictureOptions,
        clips: VideoOptions,
        progress: Progress,
    ) -> Generator[Generator[Outcome]]:
        """The outcomes of the tasks, in order, as the work goes on."""
        from paragonsr2.cluster.job import JobOptions, probe, run_on_cluster

        with ExitStack() as stack:
            if not self._transfer:
                self._pool.require_sight(*stack.enter_context(probe(tasks[0])))
            options = JobOptions(pictures, clips, self._transfer)
            yield stack.enter_context(closing(run_on_cluster(tasks, self._pool, options, progress)))


def _say(text: str) -> None:
    print(shown(text), file=sys.stderr)
