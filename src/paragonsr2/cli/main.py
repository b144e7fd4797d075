"""The command line. Each verb has its own module; this one assembles them.

Only light modules are imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from paragonsr2.cli.app import app as page
from paragonsr2.cli.benchmark import benchmark
from paragonsr2.cli.engine import engine
from paragonsr2.cli.evaluate import evaluate
from paragonsr2.cli.export import export
from paragonsr2.cli.models import inspect, models
from paragonsr2.cli.output import StandardStreams, shown
from paragonsr2.cli.serve import serve
from paragonsr2.cli.train import train
from paragonsr2.cli.upscale import upscale
from paragonsr2.cli.web import web
from paragonsr2.errors import EnvironmentProblem, ParagonError
from paragonsr2.files import is_full
from paragonsr2.process import set_up_command
from paragonsr2.version import __version__

NAME = "paragonsr2"
INTERRUPTED, BROKEN_LIBRARY, NO_ROOM = 130, 3, 3

app = typer.Typer(
    name=NAME,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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
app.command()(serve)
app.command()(web)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Enlarge images and videos 2, 3, 4 or 8 times, and train, measure and deploy the networks."""


def _end_when_told() -> None:
    """End on SIGTERM as on an error, so that no temporary file is left behind."""

    def end(number: int, frame: object) -> None:  # noqa: ARG001
        sys.exit(128 + number)

    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, end)


def _require_current_folder() -> None:
    """Libraries that are loaded later crash if the folder is gone."""
    try:
        Path.cwd()
    except OSError as error:
        raise EnvironmentProblem("the current folder is gone; change to another one") from error


def _has_no_room(error: OSError) -> bool:
    """Whether a file had no place, here or in a library."""
    nowhere = "usable temporary directory" in str(error)
    return is_full(error) or error.errno == errno.EROFS or nowhere


@contextmanager
def exit_on_error(program: str) -> Generator[None]:
    """Print an expected error as one line on stderr and exit with its code.

    Closed or full standard streams do not end the work. That results did not fit on standard
    output is an error, if there is no other.
    """
    set_up_command()
    _end_when_told()
    streams = StandardStreams()
    try:
        _require_current_folder()
        try:
            yield
        except SystemExit as end:
            if not end.code:
                streams.finish()
            raise
        streams.finish()
    except ParagonError as error:
        print(shown(f"{program}: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except ImportError as error:
        # A library is missing or damaged; what is optional has been handled where it is used.
        reason = shown(str(error))
        print(f"{program}: a library does not load: {reason}; reinstall {NAME}", file=sys.stderr)
        sys.exit(BROKEN_LIBRARY)
    except OSError as error:
        if not _has_no_room(error):
            raise
        where = f"{error.filename}: " if error.filename else ""
        said = shown(f"{where}{error.strerror or error}")
        print(
            f"{program}: no room for temporary files: {said}; make room there, or name another "
            "folder in TMPDIR",
            file=sys.stderr,
        )
        sys.exit(NO_ROOM)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def main() -> None:
    """Run the command."""
    with exit_on_error(NAME):
        app(prog_name=NAME)
