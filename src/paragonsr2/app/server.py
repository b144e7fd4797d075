"""The page's server: the service with the page, in a folder that ends with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from paragonsr2.serve.limits import Limits
from paragonsr2.serve.listening import bind, is_loopback
from paragonsr2.serve.server import needs_libraries, run

_PREFIX = "paragonsr2-app-"

#: Seconds that open connections get when the server stops.
_GRACE = 2


def serve(host: str, port: int, limits: Limits) -> None:
    """Serve the page until the process is told to stop, then remove its files.

    Args:
        host: address to bind.
        port: port to bind; 0 chooses a free one.
        limits: of the service.

    Raises:
        MissingExtraError: FastAPI or another library of the service is not installed.
        UsageError: the address cannot be bound.
    """
    needs_libraries("the page", "app")
    from paragonsr2.app.routes import page_routes
    from paragonsr2.serve.models import Engine
    from paragonsr2.serve.service import Service

    with bind(host, port) as listener:
        remove_leftovers()
        # By default, SIGTERM would end the process before the files are removed.
        signal.signal(signal.SIGTERM, _end)
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        try:
            local = is_loopback(host)
            pages = page_routes(limits, local=local)
            service = Service(folder, limits, Engine(), local_only=local, pages=pages)
            run(service, listener, grace=_GRACE, log_level="ERROR")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove the folders of servers that were killed before they could do so themselves."""
    if os.name == "nt":  # where os.kill(pid, 0) would end the process
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        number = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            ours = folder.lstat().st_uid == os.getuid()
            if number.isdigit() and ours and not _alive(int(number)):
                shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _end(_: int, __: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)
