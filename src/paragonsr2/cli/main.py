"""The command. Each verb lives in its own module; this one only joins them.

Nothing heavy is imported here: ``--help`` must not wait for PyTorch.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from paragonsr2.cli.app import app as page
from paragonsr2.cli.benchmark import benchmark
from paragonsr2.cli.engine import engine
from paragonsr2.cli.evaluate import evaluate
from paragonsr2.cli.export import export
from paragonsr2.cli.models import inspect, models
from paragonsr2.cli.train import train
from paragonsr2.cli.upscale import upscale
from paragonsr2.errors import ParagonError
from paragonsr2.version import __version__

INTERRUPTED = 130

app = typer.Typer(
    name="paragonsr2",
    help="Enlarge images 2, 3, 4 or 8 times with two-path networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(upscale)
app.command()(models)
app.command()(inspect)
app.command()(evaluate)
app.command()(export)
app.command()(engine)
app.command()(benchmark)
app.command()(train)
app.command("app")(page)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Enlarge images 2, 3, 4 or 8 times with two-path networks."""


@contextmanager
def exit_on_error(program: str) -> Generator[None]:
    """Turn errors into one line on stderr and the exit code they carry."""
    try:
        yield
    except ParagonError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)


def main() -> None:
    """Run the command."""
    with exit_on_error("paragonsr2"):
        app()
