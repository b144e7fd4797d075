"""Atomic writes: a crash, a full disk or a killed process never leaves half a file."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from paragonsr2.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows has none: leftovers stay there, and their names show what they are
    fcntl = None

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.part(\.[^.]+)?")


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """Yield a temporary path beside ``path``, which replaces ``path`` on success.

    The temporary name keeps the suffix, because encoders choose their format by it. The file is
    synced before it is renamed. Leftovers of killed runs for the same ``path`` are removed.

    Raises:
        OutputError: the folder or file cannot be written; ``path`` stays as it was.
    """
    part = path.with_name(f".{path.stem[:80]}.{secrets.token_hex(4)}.part{path.suffix}")
    lock = -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        lock = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        _try_lock(lock)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if lock >= 0:
            os.close(lock)
        with contextlib.suppress(OSError):
            part.unlink()


def is_temporary(path: Path) -> bool:
    """Whether the name is that of a file being written, or left behind by a run that died."""
    return _TEMPORARY.fullmatch(path.name) is not None


def _remove_leftovers(path: Path) -> None:
    for found in path.parent.glob(
        f".{glob.escape(path.stem[:80])}.*.part{glob.escape(path.suffix)}"
    ):
        with contextlib.suppress(OSError):
            lock = os.open(found, os.O_RDWR)
            try:
                # A process that still writes the file holds a lock, which ends with the process.
                if is_temporary(found) and _try_lock(lock):
                    found.unlink()
            finally:
                os.close(lock)


def _try_lock(descriptor: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` completely or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_path(path) as part:
        part.write_bytes(content)


def sha256(content: bytes) -> str:
    """The SHA-256 of ``content`` as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
