"""The work folder of a video job: finished segments, so that a killed job can go on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paragonsr2.clips.encode import CodedPacket
from paragonsr2.clips.remux import reorder_depth
from paragonsr2.errors import OutputError
from paragonsr2.files import atomic_path, write_atomic

_FOLDER_SUFFIX = ".paragonsr2-part"
_MAGIC = b"PSR2SEG1"
_HEAD = struct.Struct("<8sIII")  # magic, frames, reorder depth, size of the header
_PACKET = struct.Struct("<qqBI")  # pts, duration, key, size
_DIGEST = 32


def work_folder(target: Path) -> Path:
    """Where the job for ``target`` keeps what it has done: hidden, beside it."""
    return target.with_name(f".{target.name}{_FOLDER_SUFFIX}")


def is_work(path: Path) -> bool:
    """Whether a file lies in the work folder of some job."""
    return path.parent.name.endswith(_FOLDER_SUFFIX)


@dataclass(frozen=True)
class _Segment:
    """What the head of a segment's file says.

    Attributes:
        frames: in it.
        reorder: see :func:`paragonsr2.clips.remux.reorder_depth`.
        header: parameter sets of its encoder.
    """

    frames: int
    reorder: int
    header: bytes


class SegmentStore:
    """The segments of one job, in files that are whole or not there.

    Args:
        folder: the work folder, which exists and is locked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifest = folder / "job.json"
        self._segments: list[_Segment] = []

    @property
    def frames(self) -> int:
        """Frames of all segments."""
        return sum(segment.frames for segment in self._segments)

    @property
    def reorder(self) -> int:
        """The greatest depth of reordering in any segment."""
        return max((segment.reorder for segment in self._segments), default=0)

    @property
    def header(self) -> bytes:
        """Parameter sets that all segments share.

        Raises:
            OutputError: they do not, or there is no segment.
        """
        headers = {segment.header for segment in self._segments}
        if len(headers) != 1:
            raise OutputError(
                f"the encoder gave {len(headers)} different headers; delete {self.folder} "
                f"and start again"
            )
        return headers.pop()

    def identity(self) -> dict[str, Any]:
        """What the folder's job was; empty if there was none, or its record is unreadable."""
        try:
            found = json.loads(self._manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def begin(self, identity: Mapping[str, Any]) -> str:
        """Take up an earlier run of the same job, or start over.

        Args:
            identity: everything that decides the result: JSON values.

        Returns:
            Why the job starts over; empty if it goes on, or never started.

        Raises:
            OutputError: the folder cannot be written.
        """
        wanted = json.loads(json.dumps(identity))
        found = self.identity()
        if found == wanted:
            self._take_up()
            return ""
        self._drop(0)
        write_atomic(self._manifest, json.dumps(wanted, indent=1).encode())
        changed = [key for key in wanted if found.get(key) != wanted[key]]
        return f"{' and '.join(changed)} changed" if found else ""

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.segment"

    def _take_up(self) -> None:
        while (segment := _examine(self._path(len(self._segments)))) is not None:
            self._segments.append(segment)
        self._drop(len(self._segments))

    def _drop(self, number: int) -> None:
        """Delete the segments from ``number`` on, and whatever a killed job was writing."""
        kept = {self._path(n).name for n in range(number)} | {LOCK, self._manifest.name}
        for path in self.folder.iterdir():
            if path.name not in kept:
                path.unlink()

    def append(self, header: bytes, packets: Sequence[CodedPacket]) -> None:
        """Keep a finished segment.

        Args:
            header: parameter sets of its encoder.
            packets: in decoding order.

        Raises:
            OutputError: the disk is full or cannot be written.
        """
        segment = _Segment(len(packets), reorder_depth(packets), header)
        digest = hashlib.sha256()
        with atomic_path(self._path(len(self._segments))) as part, part.open("wb") as file:

            def put(block: bytes) -> None:
                digest.update(block)
                file.write(block)

            put(_HEAD.pack(_MAGIC, segment.frames, segment.reorder, len(header)) + header)
            for packet in packets:
                put(_PACKET.pack(packet.pts, packet.duration, packet.key, len(packet.data)))
                put(packet.data)
            file.write(digest.digest())
        self._segments.append(segment)

    def __iter__(self) -> Iterator[list[CodedPacket]]:
        """The packets of each segment, in decoding order; one segment in memory at a time."""
        for number, segment in enumerate(self._segments):
            content = self._path(number).read_bytes()
            place = _HEAD.size + len(segment.header)
            packets: list[CodedPacket] = []
            for _ in range(segment.frames):
                pts, duration, key, size = _PACKET.unpack_from(content, place)
                place += _PACKET.size
                packets.append(CodedPacket(pts, duration, bool(key), content[place : place + size]))
                place += size
            yield packets

    def publish(self, result: Path, target: Path) -> None:
        """Move the finished file to its place and take the folder away.

        Raises:
            OutputError: it cannot be moved; everything is as it was.
        """
        try:
            with result.open("rb+") as file:
                os.fsync(file.fileno())
            result.replace(target)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
        shutil.rmtree(self.folder, ignore_errors=True)


def _examine(path: Path) -> _Segment | None:
    """The head of a segment's file; None if the file is not there or not whole."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
            magic, frames, reorder, size = _HEAD.unpack(head)
            header = file.read(size)
            digest.update(head + header)
            left = path.stat().st_size - file.tell() - _DIGEST
            while left > 0 and (block := file.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
            whole = magic == _MAGIC and file.read() == digest.digest()
    except (OSError, struct.error):
        return None
    return _Segment(frames, reorder, header) if whole else None


LOCK = "lock"


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold a folder for this process alone; the lock ends with the process, however that ends.

    Raises:
        OutputError: another process holds it, or it cannot be made.
    """
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
        try:
            if not _lock(handle):
                raise OutputError(f"another job works on this output already (see {folder})")
            # A job that ends takes its folder away, and the lock file that we opened with it.
            if not _is_same(handle, path):
                continue
            yield
            return
        finally:
            os.close(handle)


def _is_same(handle: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _lock(handle: int) -> bool:
    """Lock an open file without waiting; whether that succeeded."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        lock: Any = msvcrt
        try:
            lock.locking(handle, lock.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
