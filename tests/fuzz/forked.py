"""A command in a fork of this process: as new as one of its own, without its second of imports."""

from __future__ import annotations

import os
import signal
import sys
from typing import Self

from paragonsr2.cli.main import NAME, app, exit_on_error


class Forked:
    """A running command, used like :class:`subprocess.Popen`; its standard error is a pipe.

    This process must not have started threads of libraries.

    Args:
        arguments: of the command.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.returncode: int | None = None
        reading, writing = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            os.close(reading)
            os.dup2(writing, 2)
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            self._run(arguments)
        os.close(writing)
        self.stderr = os.fdopen(reading)

    @staticmethod
    def _run(arguments: list[str]) -> None:
        code = 1
        try:
            with exit_on_error(NAME):
                app(arguments, prog_name=NAME)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        """Kill it at once, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the end."""
        self.stderr.close()
        self.wait()
