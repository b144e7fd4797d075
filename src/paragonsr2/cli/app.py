"""``paragonsr2 app``."""

from __future__ import annotations

from typing import Annotated

import typer


def app(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines connect.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 7860,
    max_upload: Annotated[float, typer.Option(help="Largest upload, in MB.")] = 200.0,
    max_megapixels: Annotated[float, typer.Option(help="Largest result, in megapixels.")] = 400.0,
    max_seconds: Annotated[float, typer.Option(help="Longest job, in seconds.")] = 3600.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="Most jobs that run or wait.")] = 16,
    max_disk: Annotated[
        float, typer.Option(help="Disk space for all uploads and results, in GB.")
    ] = 4.0,
    keep_minutes: Annotated[
        float, typer.Option(help="Remove a result after this time, in minutes.")
    ] = 120.0,
) -> None:
    """Serve a web page: drop pictures and clips, compare before and after, download."""
    from paragonsr2.app.server import serve
    from paragonsr2.serve.limits import Limits

    limits = Limits(
        body_bytes=int(max_upload * 1e6),
        disk_bytes=int(max_disk * 1e9),
        result_pixels=int(max_megapixels * 1e6),
        job_seconds=max_seconds,
        jobs=max_waiting,
        keep_seconds=keep_minutes * 60,
        drop_oldest=True,
    )
    serve(host, port, limits)
