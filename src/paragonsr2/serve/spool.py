"""The service's files: bodies, results and jobs in one folder of bounded size."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from paragonsr2.errors import RefusedError

#: Seconds after which a client that met a full disk may try again.
_LATER = 30


def no_room() -> RefusedError:
    """The refusal of a request whose files have no place."""
    return RefusedError(503, "the service has no room for files left; try again later", _LATER)


class Spool:
    """Counts the bytes of all files, and gives out folders for them.

    Threads may share it.

    Args:
        root: folder of the folders that are given out; it is created.
        most: bytes of all files together.

    Attributes:
        used: bytes of all files.
        make_room: removes files that can be spared; False if there are none.
    """

    def __init__(self, root: Path, most: int) -> None:
        self.root, self.most = root, most
        self.used = 0
        self.make_room: Callable[[], bool] = lambda: False
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def folder(self, name: str = "") -> SpoolFolder:
        """A folder with the given name, or a new one with a random name."""
        return SpoolFolder(self, self.root / (name or secrets.token_hex(16)))

    def add(self, count: int, *, must_fit: bool) -> None:
        """Count bytes, which are negative when files are removed.

        Raises:
            RefusedError: they must fit and do not.
        """
        while not self._added(count, must_fit=must_fit):
            if not self.make_room():
                raise no_room()

    def _added(self, count: int, *, must_fit: bool) -> bool:
        with self._lock:
            fits = not must_fit or self.used + count <= self.most
            self.used += count if fits else 0
        return fits


class SpoolFolder:
    """One folder; its bytes count until it is closed, which removes it.

    Args:
        spool: that counts them.
        path: the folder; it is created, or its files are counted.
    """

    def __init__(self, spool: Spool, path: Path) -> None:
        self.path, self._spool, self.bytes = path, spool, 0
        path.mkdir(exist_ok=True, mode=0o700)
        self.measure()

    def grow(self, count: int) -> None:
        """Count bytes that are about to be received.

        Raises:
            RefusedError: there is no room for them.
        """
        self._spool.add(count, must_fit=True)
        self.bytes += count

    def measure(self) -> None:
        """Count the files that are there, whether they fit or not."""
        there = folder_bytes(self.path)
        self._spool.add(there - self.bytes, must_fit=False)
        self.bytes = there

    def close(self) -> None:
        """Remove the folder; may be called again."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._spool.add(-self.bytes, must_fit=False)
        self.bytes = 0

    def __enter__(self) -> Self:
        """Return the folder."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the folder."""
        self.close()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below ``folder``; files removed in the meantime do not count."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(place, name).lstat().st_size
    return total
