"""``paragonsr2 app``."""

from __future__ import annotations

from typing import Annotated

import typer


def app(
    host: Annotated[
        str, typer.Option(help="Address to listen on; another one shows the page to others.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    max_upload: Annotated[float, typer.Option(help="MB of one upload.")] = 200.0,
    max_megapixels: Annotated[float, typer.Option(help="Megapixels of one result.")] = 400.0,
    max_seconds: Annotated[float, typer.Option(help="Seconds of one job.")] = 600.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="Jobs in the queue.")] = 16,
    max_disk: Annotated[float, typer.Option(help="GB of all uploads and results.")] = 4.0,
    keep_minutes: Annotated[
        float, typer.Option(help="Minutes after its last use that a file is removed.")
    ] = 30.0,
) -> None:
    """Serve a web page on this machine: drop a picture, compare, download."""
    from paragonsr2.app.limits import Limits
    from paragonsr2.app.server import serve

    limits = Limits(
        upload_bytes=int(max_upload * 1e6),
        disk_bytes=int(max_disk * 1e9),
        result_pixels=int(max_megapixels * 1e6),
        job_seconds=max_seconds,
        waiting=max_waiting,
        keep_seconds=keep_minutes * 60,
    )
    serve(host, port, limits)
