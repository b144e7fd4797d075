"""``paragonsr2 train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from paragonsr2.errors import MissingExtraError

if TYPE_CHECKING:
    from paragonsr2.training.meters import Progress


def train(
    config: Annotated[
        Path,
        typer.Argument(help="A TOML file, such as those in configs/, or a traiNNer-redux YAML."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[section.key=value]...", help="Change options of the file."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in run.output from its last state.")
    ] = False,
    preview: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, metavar="N", help="Write a picture of N crop pairs; train nothing."
        ),
    ] = None,
) -> None:
    """Train a network, for fidelity or for perceptual quality."""
    with TrainingLine() as line:
        try:
            from paragonsr2.training.config_file import check_folders, load_config

            settings = load_config(config, overrides or [], line.log)
            # Before PyTorch is imported, which takes seconds.
            check_folders(settings.data)

            from paragonsr2.training.loop import Trainer
            from paragonsr2.training.preview import write_preview
        except ModuleNotFoundError as error:
            raise MissingExtraError("training", "train") from error

        if preview is not None:
            typer.echo(write_preview(settings, preview, line.log))
            return
        trainer = Trainer(settings, resume=resume, log=line.log, show=line.show_or_none)
        trainer.run()
    trainer.close()


class TrainingLine:
    """Lines of text on stderr and, on a terminal, a live line that says how far a run is.

    ``NO_COLOR`` is respected.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        """Start the live line, if stderr is a terminal."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[facts]}", markup=False),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None, facts="")
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the live line."""
        if self._bar is not None:
            self._bar.stop()

    def log(self, line: str) -> None:
        """Print ``line``, above the live line if there is one."""
        if self._bar is None:
            typer.echo(line, err=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @property
    def show_or_none(self) -> Any:
        """:meth:`show` on a terminal; None elsewhere, so that progress is logged as lines."""
        return self.show if self._bar is not None else None

    def show(self, progress: Progress) -> None:
        """Update the live line."""
        self._bar.update(
            self._task,
            description=f"step {progress.step:,}/{progress.steps:,}",
            completed=progress.step,
            total=progress.steps,
            facts=progress_facts(progress),
        )


def progress_facts(progress: Progress) -> str:
    """The facts of the live line: rate, time left, losses, last validation."""
    if progress.doing:
        return progress.doing
    facts = [f"{progress.rate:.1f} steps/s"] if progress.rate else []
    if progress.seconds_left is not None:
        facts.append(f"{_duration(progress.seconds_left)} left")
    facts += [text for text in (progress.losses_text(), progress.validation) if text]
    return "  ".join(facts)


def _duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
