"""Running the service: address, signals, logs."""

from __future__ import annotations

import math
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from paragonsr2.errors import MissingExtraError, UsageError
from paragonsr2.serve.limits import Limits
from paragonsr2.serve.listening import address_of, bind, is_loopback
from paragonsr2.serve.models import Engine

if TYPE_CHECKING:
    import socket

    import uvicorn

    from paragonsr2.serve.service import Service

#: Connections at the same time; more are answered with 503.
_CONNECTIONS = 512

#: Seconds that a stopping server gives to answers on their way, beyond the time of a computation.
_GRACE = 30


def serve(
    host: str, port: int, folder: Path | None, limits: Limits, engine: Engine, token: str
) -> None:
    """Serve until the process is told to stop; what was begun is finished first.

    Pictures are finished. A job is put off, and goes on when the service is started again.

    Args:
        host: address to bind.
        port: port to bind; 0 chooses a free one.
        folder: of files and jobs; None for one of the user's.
        limits: what the service takes.
        engine: how networks run.
        token: that requests must bring; empty for none.

    Raises:
        MissingExtraError: FastAPI or another library of the service is not installed.
        UsageError: the address cannot be bound, or another service uses the folder.
        EnvironmentProblem: the engine cannot run here.
    """
    needs_libraries("the service", "serve")
    from paragonsr2.serve.service import Service

    with bind(host, port) as listener:
        local = is_loopback(host)
        service = Service(
            default_folder() if folder is None else folder,
            limits,
            engine,
            local_only=local,
            token=token,
        )
        # Whether the engine works here shows now, and not at the first request.
        service.parts.models.open("realtime", 2)
        if not local and not token:
            print("anyone who reaches this address may use it: no --token-file", file=sys.stderr)
        run(service, listener)


def needs_libraries(purpose: str, extra: str) -> None:
    """Check that the libraries of the service are there.

    Args:
        purpose: who needs them.
        extra: of the package, which brings them.

    Raises:
        MissingExtraError: one is not installed.
    """
    if any(find_spec(name) is None for name in ("fastapi", "fastapi_offline", "prometheus_client")):
        raise MissingExtraError(purpose, extra)


def run(
    service: Service,
    listener: socket.socket,
    *,
    grace: int | None = None,
    log_level: str = "INFO",
) -> None:
    """Run a service until the process is told to stop.

    Args:
        service: to run; it is closed at the end.
        listener: where clients connect.
        grace: seconds that open connections get when the service stops; None for the time that a
            computation may take.
        log_level: least level of the service's own log.
    """
    import uvicorn

    server = uvicorn.Server(configuration(service, grace, log_level))

    def end(_: int, __: FrameType | None) -> None:
        # uvicorn raises the signal that stopped it once more when everything has ended.
        if not server.started:
            sys.exit(0)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    print(f"ParagonSR2 at {address_of(listener)}  (Ctrl-C ends it)", flush=True)
    try:
        server.run(sockets=[listener])
    finally:
        service.parts.runner.close()  # if it was stopped in such haste that nobody else did


def configuration(
    service: Service, grace: int | None = None, log_level: str = "INFO"
) -> uvicorn.Config:
    """How uvicorn runs a service; arguments as in :func:`run`."""
    import uvicorn

    from paragonsr2.serve.connections import patient_protocol
    from paragonsr2.serve.logs import logging_config

    limits = service.parts.limits
    return uvicorn.Config(
        service.app,
        http=patient_protocol(limits.patience),
        ws="none",
        log_config=logging_config(log_level),
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=math.ceil(limits.seconds) + _GRACE if grace is None else grace,
    )


def default_folder() -> Path:
    """Where a user's services keep their state.

    Raises:
        UsageError: the user has no home.
    """
    variable, inside = (
        ("LOCALAPPDATA", "AppData/Local") if os.name == "nt" else ("XDG_STATE_HOME", ".local/state")
    )
    try:
        base = os.environ.get(variable) or Path.home() / inside
    except RuntimeError as error:
        raise UsageError("this user has no home folder; give a folder with --folder") from error
    return Path(base) / "paragonsr2" / "service"


def read_token(path: Path | None) -> str:
    """The token of a file, or of the environment variable ``PARAGONSR2_TOKEN``.

    A token on the command line could be read by every user of the machine.

    Args:
        path: of the file; None for the variable.

    Returns:
        The token; empty for none.

    Raises:
        UsageError: the file cannot be read, or the token is short.
    """
    if path is None:
        token = os.environ.get("PARAGONSR2_TOKEN", "").strip()
    else:
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the token in {path}: {error}") from error
    given = path is not None or "PARAGONSR2_TOKEN" in os.environ
    if given and (len(token) < 16 or not token.isascii()):
        raise UsageError("the token must have 16 characters or more, all ASCII")
    return token
