"""``paragonsr2 train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paragonsr2.errors import MissingExtraError


def train(
    config: Annotated[
        Path,
        typer.Argument(help="A TOML file, such as those in configs/, or a traiNNer-redux YAML."),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Overrides.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last state.")] = False,
    preview: Annotated[
        int | None,
        typer.Option(min=1, max=1000, metavar="N", help="Only write a picture of N crop pairs."),
    ] = None,
) -> None:
    """Train a network, for fidelity or for the eye."""
    try:
        from paragonsr2.training.config import load_config
        from paragonsr2.training.loop import Trainer
        from paragonsr2.training.preview import write_preview
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", "train") from error

    settings = load_config(config, overrides or [], _log)
    if preview is not None:
        typer.echo(write_preview(settings, preview, _log))
        return
    trainer = Trainer(settings, resume=resume, log=_log)
    trainer.run()
    trainer.close()


def _log(line: str) -> None:
    typer.echo(line, err=True)
