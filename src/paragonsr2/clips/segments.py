"""The work folder of a video job: finished segments, so that an interrupted job can resume."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paragonsr2.clips.encode import CodedPacket
from paragonsr2.clips.remux import reorder_depth
from paragonsr2.errors import BusyOutputError, OutputError
from paragonsr2.files import atomic_path, write_atomic

_FOLDER_SUFFIX = ".paragonsr2-part"
_LOCK = "lock"


def work_folder(target: Path) -> Path:
    """The hidden folder beside ``target`` in which its job keeps finished work."""
    return target.with_name(f".{target.name}{_FOLDER_SUFFIX}")


def is_work(path: Path) -> bool:
    """Whether a file lies in the work folder of some job."""
    return path.parent.name.endswith(_FOLDER_SUFFIX)


@dataclass(frozen=True)
class _Segment:
    """A summary of a segment's file.

    Attributes:
        frames: number of frames.
        reorder: see :func:`paragonsr2.clips.remux.reorder_depth`.
        header: parameter sets of its encoder.
    """

    frames: int
    reorder: int
    header: bytes


class SegmentStore:
    """The finished segments of one job, one file each.

    A file is a NumPy archive (``.npz``) of the packets in decoding order: their time stamps,
    durations, key-frame flags, sizes and bytes. Its checksums reveal damage. A Matroska file
    would round time stamps to milliseconds and rewrite the packets.

    Args:
        folder: the work folder; it exists and is locked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifest = folder / "job.json"
        self._segments: list[_Segment] = []

    @property
    def frames(self) -> int:
        """Number of frames in all segments."""
        return sum(segment.frames for segment in self._segments)

    @property
    def reorder(self) -> int:
        """The largest reorder depth of any segment."""
        return max((segment.reorder for segment in self._segments), default=0)

    @property
    def header(self) -> bytes:
        """The parameter sets that all segments share.

        Raises:
            OutputError: the segments have different ones, or there is no segment.
        """
        headers = {segment.header for segment in self._segments}
        if len(headers) != 1:
            raise OutputError(
                f"the encoder produced {len(headers)} different headers; delete {self.folder} "
                f"and start again"
            )
        return headers.pop()

    def identity(self) -> dict[str, Any]:
        """The recorded identity of the folder's job; empty if absent or unreadable."""
        try:
            found = json.loads(self._manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def begin(self, identity: Mapping[str, Any]) -> str:
        """Resume an earlier run of the same job, or start from the beginning.

        Args:
            identity: everything that determines the result, as JSON values.

        Returns:
            Why an earlier run cannot be resumed; empty if it is, or if there was none.

        Raises:
            OutputError: the folder cannot be written.
        """
        wanted = json.loads(json.dumps(identity))
        found = self.identity()
        if found == wanted:
            self._resume()
            return ""
        self._delete_from(0)
        write_atomic(self._manifest, json.dumps(wanted, indent=1).encode())
        changed = [key for key in wanted if found.get(key) != wanted[key]]
        return f"{' and '.join(changed)} changed" if found else ""

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"

    def _resume(self) -> None:
        while (segment := _examine(self._path(len(self._segments)))) is not None:
            self._segments.append(segment)
        self._delete_from(len(self._segments))

    def _delete_from(self, number: int) -> None:
        """Delete the segments from ``number`` on, and everything a killed run left behind."""
        kept = {self._path(n).name for n in range(number)} | {_LOCK, self._manifest.name}
        for path in self.folder.iterdir():
            if path.name not in kept:
                path.unlink()

    def append(self, header: bytes, packets: Sequence[CodedPacket]) -> None:
        """Save a finished segment.

        Args:
            header: parameter sets of its encoder.
            packets: in decoding order.

        Raises:
            OutputError: the file cannot be written, for example because the disk is full.
        """
        write_segment(self._path(len(self._segments)), header, packets)
        self._segments.append(_Segment(len(packets), reorder_depth(packets), header))

    def foreign(self, number: int) -> Path:
        """A new name in the folder, for a segment that another process writes.

        Only the holder of the folder's lock gives a file the name of a segment, so that nothing
        that a lost process still writes can get among the segments of a later job.
        """
        return self.folder / f".{number:06d}.{secrets.token_hex(4)}.npz"

    def adopt(self, path: Path) -> None:
        """Take a file written by :func:`write_segment` as the next segment.

        Args:
            path: from :meth:`foreign`.

        Raises:
            OutputError: it is missing or damaged, or cannot be renamed.
        """
        segment = _examine(path)
        if segment is None:
            raise OutputError(
                f"{path} is missing or damaged; do all machines share {self.folder.parent}? "
                f"--ray-transfer does without"
            )
        try:
            path.replace(self._path(len(self._segments)))
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror or error}") from error
        self._segments.append(segment)

    def __iter__(self) -> Iterator[list[CodedPacket]]:
        """The packets of each segment, in decoding order; one segment in memory at a time."""
        for number in range(len(self._segments)):
            yield _read(self._path(number))[1]

    def publish(self, result: Path, target: Path) -> None:
        """Move the finished file to its place and delete the folder.

        Raises:
            OutputError: it cannot be moved; nothing has changed.
        """
        try:
            with result.open("rb+") as file:
                os.fsync(file.fileno())
            result.replace(target)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
        shutil.rmtree(self.folder, ignore_errors=True)


def write_segment(path: Path, header: bytes, packets: Sequence[CodedPacket]) -> None:
    """Write a segment's file, whole or not at all.

    Args:
        path: of the file.
        header: parameter sets of its encoder.
        packets: in decoding order.

    Raises:
        OutputError: the file cannot be written, for example because the disk is full.
    """
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(
            file,
            header=_as_array(header),
            pts=np.array([packet.pts for packet in packets], np.int64),
            duration=np.array([packet.duration for packet in packets], np.int64),
            key=np.array([packet.key for packet in packets], bool),
            size=np.array([len(packet.data) for packet in packets], np.int64),
            data=_as_array(b"".join(packet.data for packet in packets)),
        )


def _as_array(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(data, np.uint8)


def _read(path: Path) -> tuple[bytes, list[CodedPacket]]:
    """Parameter sets and packets of a segment's file; raises what NumPy raises for damage."""
    with np.load(path) as archive:
        header, data = archive["header"].tobytes(), archive["data"].tobytes()
        stops = np.cumsum(archive["size"]).tolist()
        starts = [0, *stops][: len(stops)]
        fields = (archive[name].tolist() for name in ("pts", "duration", "key"))
        return header, [
            CodedPacket(pts, duration, key, data[start:stop])
            for pts, duration, key, start, stop in zip(*fields, starts, stops, strict=True)
        ]


def _examine(path: Path) -> _Segment | None:
    """Summarise a segment's file; None if it is missing or damaged."""
    try:
        header, packets = _read(path)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
        return None
    return _Segment(len(packets), reorder_depth(packets), header)


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Lock a folder for this process; the system releases the lock even if the process is killed.

    Raises:
        BusyOutputError: another process holds the lock.
        OutputError: the folder cannot be created.
    """
    path = folder / _LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
        try:
            if not _lock(handle):
                raise BusyOutputError(f"another run is writing this output (see {folder})")
            # A job that ends deletes its folder, and with it the lock file that we just opened.
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
    """Try to lock an open file without waiting; return whether that succeeded."""
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
