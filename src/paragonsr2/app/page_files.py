"""The page's files: uploads and results in one private folder, removed when the server stops.

A random token identifies a file. Its original name is only shown to the visitor; it is never
part of a path.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paragonsr2.app.limits import Limits
from paragonsr2.errors import InputError, OutputError
from paragonsr2.serve.names import harmless_name
from paragonsr2.serve.spool import folder_bytes

_PREFIX = "paragonsr2-app-"


@dataclass
class PageFile:
    """One upload or one result.

    Attributes:
        token: identifies the file in the page.
        name: file name for display and download, sanitised.
        path: the file, in a folder of its own.
        owner: session of the visitor; empty while unknown.
        touched: time of the last use, in seconds of the clock.
        reserved: bytes that it may grow to while it is written.
        users: number of jobs that hold it.
    """

    token: str
    name: str
    path: Path
    owner: str = ""
    touched: float = 0.0
    reserved: int = 0
    users: int = 0

    @property
    def shown(self) -> Path:
        """The preview, in a format that any browser can show."""
        return self.path.with_name("shown.png")


class PageFiles:
    """Uploads and results, limited in size and age.

    Args:
        limits: of the server.
        clock: returns monotonic seconds.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.clock = clock
        self.root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._items: dict[str, PageFile] = {}
        self._lock = threading.RLock()

    @contextmanager
    def write(self, name: str, suffix: str, size: int, owner: str = "") -> Generator[PageFile]:
        """Reserve space for a file that the caller writes; it is removed if the caller fails.

        Args:
            name: file name for display; sanitised here.
            suffix: of the path, from a fixed list.
            size: bytes that it may grow to; the least recently used idle files are removed to
                make room.
            owner: session of the visitor.

        Raises:
            OutputError: the files in use leave too little room.
        """
        token = secrets.token_urlsafe(16)
        path = self.root / token / f"file{suffix}"
        item = PageFile(token, harmless_name(name), path, owner, self.clock(), size, users=1)
        with self._lock:
            self._make_room(size)
            path.parent.mkdir(mode=0o700)
            self._items[token] = item
        try:
            yield item
        except BaseException:
            self.remove(token)
            raise
        with self._lock:
            item.reserved = 0
            item.users -= 1

    def get(self, token: str) -> PageFile:
        """Look up a file and mark it as used.

        Raises:
            InputError: no file has this token, or it was removed.
        """
        with self._lock:
            item = self._items.get(token)
            if item is None:
                raise InputError("the file is no longer here; drop it again")
            item.touched = self.clock()
            return item

    @contextmanager
    def use(self, token: str) -> Generator[PageFile]:
        """Hold a file, which protects it from removal.

        Raises:
            InputError: no file has this token, or it was removed.
        """
        with self._lock:
            item = self.get(token)
            item.users += 1
        try:
            yield item
        finally:
            with self._lock:
                item.users -= 1
                item.touched = self.clock()

    def remove(self, token: str) -> None:
        """Remove a file; does nothing if it is already gone."""
        with self._lock:
            item = self._items.pop(token, None)
        if item is not None:
            shutil.rmtree(item.path.parent, ignore_errors=True)

    def release(self, owner: str) -> None:
        """Remove a visitor's files, except those in use."""
        self._remove_where(lambda item: item.owner == owner)

    def sweep(self) -> None:
        """Remove the files that have been idle for longer than the limit."""
        oldest = self.clock() - self.limits.keep_seconds
        self._remove_where(lambda item: item.touched < oldest)

    def used(self) -> int:
        """Bytes of all files; a file that is still being written counts with its reserved size."""
        with self._lock:
            items = list(self._items.values())
        return sum(max(item.reserved, folder_bytes(item.path.parent)) for item in items)

    def close(self) -> None:
        """Remove all files and their folder."""
        with self._lock:
            self._items.clear()
        shutil.rmtree(self.root, ignore_errors=True)

    def _make_room(self, size: int) -> None:
        while self.used() + size > self.limits.disk_bytes:
            idle = [item for item in self._items.values() if not item.users]
            if not idle:
                raise OutputError("there is no room left for this file; try again in a minute")
            self.remove(min(idle, key=lambda item: item.touched).token)

    def _remove_where(self, condition: Callable[[PageFile], bool]) -> None:
        with self._lock:
            gone = [
                item.token for item in self._items.values() if not item.users and condition(item)
            ]
        for token in gone:
            self.remove(token)


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
