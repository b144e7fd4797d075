"""Atomic writes: a crash, a full disk or a killed process never leaves half a file."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import re
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from paragonsr2.errors import BusyOutputError, OutputError

try:
    import fcntl
except ImportError:  # Windows has none: leftovers stay there, and their names show what they are
    fcntl = None

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.part(\.[^.]+)?")
_TOKEN = re.compile(r"[0-9a-f]{8}\.part")

# Bytes of a stem that is kept whole in a temporary name.
_LONGEST_STEM = 160

# Bytes that are written to find out whether there is room.
_TRIAL = 1 << 20


@contextmanager
def atomic_path(path: Path, *, alone: bool = False) -> Generator[Path]:
    """Yield a temporary path beside ``path``, which replaces ``path`` on success.

    The temporary name keeps the suffix, because encoders choose their format by it. The file is
    synced before it is renamed. Leftovers of killed runs for the same ``path`` are removed.

    Args:
        path: the file to write.
        alone: give up if another process is writing the same file.

    Raises:
        BusyOutputError: another process is writing the file, and ``alone`` is set.
        OutputError: the folder or file cannot be written; ``path`` stays as it was.
    """
    part = path.with_name(f"{_beginning(path)}{secrets.token_hex(4)}.part{path.suffix}")
    lock = -1
    # A device or a pipe would be replaced by a file, for every program that uses it.
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is not a regular file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # While the folder is locked, no other process looks or begins.
        with _locked_folder(path.parent):
            busy = _remove_leftovers(path)
            if busy and alone:
                raise BusyOutputError(f"another run is writing {path}; this one leaves it to that")
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


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is that there is no room for a file."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def require_room(part: Path, path: Path) -> None:
    """Find out whether a file could not be written for want of room, whatever a library says.

    Args:
        part: the temporary file, which is of no more use.
        path: the file that was to be written.

    Raises:
        OutputError: nothing more can be written to ``part``; says why.
    """
    try:
        with part.open("ab") as file:
            file.write(bytes(_TRIAL))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _beginning(path: Path) -> str:
    """What the temporary names for ``path`` begin with, and those for no other file."""
    stem = path.stem
    if len(os.fsencode(stem)) > _LONGEST_STEM:
        stem = f"{stem[: _LONGEST_STEM // 4]}~{sha256(os.fsencode(stem))[:16]}"
    return f".{stem}."


@contextmanager
def _locked_folder(folder: Path) -> Generator[None]:
    """Lock a folder against other runs for a moment, where the file system can."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_temporary(path: Path) -> bool:
    """Whether the name is that of a file being written, or left behind by a run that died."""
    return _TEMPORARY.fullmatch(path.name) is not None


def _remove_leftovers(path: Path) -> bool:
    """Remove what killed runs left of ``path``; whether another process is writing it now."""
    busy = False
    beginning = _beginning(path)
    for found in path.parent.glob(f"{glob.escape(beginning)}*.part{glob.escape(path.suffix)}"):
        if not _TOKEN.match(found.name[len(beginning) :]):
            continue  # of a file whose name begins alike
        with contextlib.suppress(OSError):
            lock = os.open(found, os.O_RDWR)
            try:
                # A process that still writes the file holds a lock, which ends with the process.
                if _try_lock(lock):
                    found.unlink()
                else:
                    busy = fcntl is not None
            finally:
                os.close(lock)
    return busy


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
