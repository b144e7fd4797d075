"""Standard output and error that may be closed, broken or full, and what is shown on them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import unicodedata
from typing import Any, TextIO

from paragonsr2.errors import OutputError

# Categories of characters that move the cursor, hide text, or are no characters.
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def shown(text: str) -> str:
    """A text in which control characters are escaped, for people to read on one line.

    File names and metadata are written by strangers, and a terminal obeys what it is sent.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) in _INVISIBLE:
        return character.encode("unicode_escape").decode("ascii")
    return character


class _Patient(io.RawIOBase):
    """A file descriptor that nobody may read, or that may be full: the work goes on.

    Attributes:
        lost: why what was written did not arrive; None if it did, or if the reader left.
    """

    def __init__(self, descriptor: int) -> None:
        self.lost: OSError | None = None
        self._descriptor = descriptor

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, content: Any, /) -> int:
        """Write what can be written, and take the rest as if it were."""
        length = len(memoryview(content))
        if self.lost is not None:
            return length
        try:
            return os.write(self._descriptor, content)
        except BrokenPipeError:
            return length
        except OSError as error:
            self.lost = error
            return length


class StandardStreams:
    """The standard streams of a command, replaced by ones whose failure is no end of the work.

    Streams that a host program has replaced are left as they are.
    """

    def __init__(self) -> None:
        # A file that is opened while a descriptor is closed would get its number, and with it
        # whatever a library prints.
        for descriptor in (0, 1, 2):
            try:
                os.fstat(descriptor)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
        if sys.stdin is sys.__stdin__ is None:
            sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
        self._patient: _Patient | None = None
        if sys.stdout is sys.__stdout__:
            # Names of files go to pipes byte for byte.
            self._patient = _Patient(1)
            sys.stdout = _text(self._patient, sys.__stdout__, "surrogateescape")
        if sys.stderr is sys.__stderr__:
            sys.stderr = _text(_Patient(2), sys.__stderr__, "backslashreplace")

    def finish(self) -> None:
        """Write what waits.

        Raises:
            OutputError: standard output is full, so that results or messages are lost.
        """
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if self._patient is not None and self._patient.lost is not None:
            error = self._patient.lost
            raise OutputError(
                f"standard output cannot be written: {error.strerror or error}; files are complete"
            )


def _text(raw: _Patient, before: TextIO | None, errors: str) -> io.TextIOWrapper:
    encoding = "utf-8" if before is None else before.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=raw.isatty()
    )
