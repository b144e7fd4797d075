"""``paragonsr2 web``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def web(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the page.")],
) -> None:
    """Write a page that enlarges pictures and clips in the browser, without a server.

    Any web server can give it out. It sends and loads nothing else.
    """
    from paragonsr2.cli.output import shown
    from paragonsr2.web.site import write_page

    write_page(out)
    print(shown(str(out / "index.html")))
    # A page from a file may not load modules; a server on this machine is enough.
    folder = shown(shlex.quote(str(out)))
    typer.echo(
        f"To open it: python3 -m http.server --bind 127.0.0.1 -d {folder}, "
        "then http://127.0.0.1:8000",
        err=True,
    )
