"""Standard input and output in place of files."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paragonsr2.errors import UsageError

if TYPE_CHECKING:
    from paragonsr2.upscale.task import Task

#: Stands for standard input among the inputs, and for standard output as the output.
STREAM = "-"


@dataclass(frozen=True)
class Files:
    """The files that a job works on, with temporary ones in place of standard streams.

    Attributes:
        inputs: as the user gave them; standard input is replaced by a temporary file.
        output: as the user gave it; standard output is replaced by a temporary folder.
        to_stdout: the result goes to standard output.
        folder: holds the temporary files; None without standard streams.
    """

    inputs: Sequence[str]
    output: str | None
    to_stdout: bool = False
    folder: Path | None = None

    def check(self, tasks: Sequence[Task]) -> None:
        """Refuse more than one result on standard output.

        Raises:
            UsageError: there are several tasks.
        """
        if self.to_stdout and len(tasks) > 1:
            raise UsageError(f"-o - takes one result, but there are {len(tasks)} inputs")

    def shown(self, text: str) -> str:
        """A message without the path of the temporary folder."""
        return text if self.folder is None else text.replace(f"{self.folder}{os.sep}", "")

    def deliver(self, tasks: Sequence[Task]) -> None:
        """Copy the result to standard output, if that is wanted and there is one."""
        if not self.to_stdout or not tasks[0].target.exists():
            return
        with tasks[0].target.open("rb") as result:
            shutil.copyfileobj(result, sys.stdout.buffer)
        sys.stdout.buffer.flush()


@contextmanager
def standard_streams(
    inputs: Sequence[str], output: str | None, *, exclusive: bool
) -> Generator[Files]:
    """Replace ``-`` by temporary files.

    Without an output, the result of standard input goes to standard output.

    Args:
        inputs: of the command.
        output: of the command.
        exclusive: standard output is needed for something else.

    Raises:
        UsageError: there are other inputs beside standard input, or standard output is a terminal
            or is not free.
    """
    reads = STREAM in inputs
    writes = output == STREAM or (reads and output is None)
    if not reads and not writes:
        yield Files(inputs, output)
        return
    if reads and len(inputs) > 1:
        raise UsageError("standard input (-) must be the only input")
    if writes and exclusive:
        raise UsageError("--json and --events need standard output; give -o a file")
    if writes and sys.stdout.isatty():
        raise UsageError("standard output is a terminal; redirect it, for example: > large.png")
    with tempfile.TemporaryDirectory(prefix="paragonsr2-") as name:
        folder = Path(name)
        if reads:
            inputs = [str(_save_stdin(folder))]
        yield Files(inputs, f"{folder / 'result'}{os.sep}" if writes else output, writes, folder)


def _save_stdin(folder: Path) -> Path:
    """Save standard input as a file whose suffix fits its content."""
    from paragonsr2.images.formats import SIGNATURE_BYTES, recognise

    plain = folder / "stdin"
    with plain.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    with plain.open("rb") as file:
        form = recognise(file.read(SIGNATURE_BYTES))
    return plain.rename(plain.with_suffix(form.suffixes[0])) if form else plain
