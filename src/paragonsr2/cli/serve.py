"""``paragonsr2 serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paragonsr2.cli.options import BackendOption, DeviceOption, PrecisionOption, TileOption, tile_of


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines connect.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the token that every request must bring. Default: the environment "
            "variable PARAGONSR2_TOKEN; without it, no token is needed."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder of files and jobs. Default: one of the user's."),
    ] = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    tile: TileOption = "auto",
    workers: Annotated[
        int, typer.Option(min=1, help="Pictures read, computed and written at the same time.")
    ] = 3,
    max_waiting: Annotated[int, typer.Option(min=0, help="Longest queue, in pictures.")] = 32,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tiles of one size that the engine computes together. Default: 8 where that "
            "changes no bit of the result, else 1.",
        ),
    ] = None,
    max_body: Annotated[float, typer.Option(help="Largest body of a request, in MB.")] = 100.0,
    max_megapixels: Annotated[float, typer.Option(help="Largest result, in megapixels.")] = 200.0,
    max_seconds: Annotated[float, typer.Option(help="Longest time for a picture.")] = 60.0,
    max_jobs: Annotated[int, typer.Option(min=0, help="Most jobs that run or wait.")] = 16,
    max_job_hours: Annotated[float, typer.Option(help="Longest run of a job, in hours.")] = 6.0,
    max_disk: Annotated[float, typer.Option(help="Disk space for all files, in GB.")] = 8.0,
    keep_hours: Annotated[
        float, typer.Option(help="Remove a finished job after this time, in hours.")
    ] = 24.0,
    patience: Annotated[
        float, typer.Option(help="Seconds for a request's headers, and before --min-rate holds.")
    ] = 10.0,
    min_rate: Annotated[
        float, typer.Option(help="Least rate at which clients send and receive, in kB/s.")
    ] = 10.0,
) -> None:
    """Serve over HTTP: pictures at once, clips as jobs, tensors by the Open Inference Protocol."""
    from paragonsr2.serve.limits import Limits
    from paragonsr2.serve.models import Engine
    from paragonsr2.serve.server import read_token
    from paragonsr2.serve.server import serve as run

    limits = Limits(
        body_bytes=int(max_body * 1e6),
        disk_bytes=int(max_disk * 1e9),
        result_pixels=int(max_megapixels * 1e6),
        seconds=max_seconds,
        workers=workers,
        waiting=max_waiting,
        together=batch,
        patience=patience,
        least_rate=min_rate * 1e3,
        jobs=max_jobs,
        job_seconds=max_job_hours * 3600,
        keep_seconds=keep_hours * 3600,
    )
    engine = Engine(backend, device, precision, tile_of(tile))
    run(host, port, folder, limits, engine, read_token(token_file))
