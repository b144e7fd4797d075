"""Train a queue of runs, one after the other, over many days and machines.

    python tools/training_queue.py training_state/queue.toml

Starts or resumes the first run that is not finished, then continues with the next. Each run is
trained by a clone of this repository at one commit, so that changes here do not affect it. Ctrl-C
and SIGTERM stop the run after its current step and leave a small copy of its state beside the
queue, from which another machine can continue. A queue looks like this:

    [[run]]
    config = "configs/stream_x2.toml"
    commit = "0123abc"                   # the code that trains it; default: the newest
    overrides = ["run.threads=1"]

A queue trains one run at a time. On a machine with cores to spare, a second command with
``--only NAME`` trains just that run, whatever its place; NAME is the last part of the run's output
folder. When the weights of a run are released, remove it from the queue and delete its copy.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from paragonsr2.errors import ConfigError, ParagonError
from paragonsr2.files import write_atomic
from paragonsr2.training.config_file import load_config
from paragonsr2.training.state import RECORDS, STATE_FILE, pack, read_state, unpack

ROOT = Path(__file__).parent.parent
#: Largest allowed copy of a state, in bytes.
LIMIT = 16 * 2**20
#: File in a run's folder with the commit of the code that trains it.
COMMIT_FILE = "commit.txt"


@dataclass(frozen=True)
class Run:
    """One entry of a queue.

    Attributes:
        config: path of the configuration, relative to the root of the repository.
        commit: of the code that trains it; None is the newest when the run starts.
        overrides: of the configuration.
    """

    config: str
    commit: str | None = None
    overrides: tuple[str, ...] = ()


def read_queue(path: Path) -> list[Run]:
    """Read a queue.

    Raises:
        ConfigError: it is unreadable or has an unknown key.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        runs = [
            Run(**{**entry, "overrides": tuple(entry.get("overrides", ()))})
            for entry in table.pop("run", [])
        ]
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise ConfigError(f"{path} is not a queue of runs: {error}") from error
    if table or not runs:
        raise ConfigError(
            f"{path}: a queue has only [[run]] tables with config, commit and overrides"
        )
    return runs


class Queue:
    """The runs of a queue file on this machine.

    Args:
        path: the file; copies of states are written beside it.
        root: of the repository; paths of runs and data are relative to it.
        only: name of the one run to train; None trains all in order.
    """

    def __init__(self, path: Path, root: Path = ROOT, only: str | None = None) -> None:
        self.path, self.root, self.only = path, root, only
        self.stopping = False
        self._process: subprocess.Popen[str] | None = None

    def train(self) -> bool:
        """Train until every run is finished or :meth:`stop` is called.

        Returns:
            Whether every run is finished.

        Raises:
            ParagonError: a run cannot be started or has failed, or no run has the name ``only``.
        """
        names: list[str] = []
        for run in read_queue(self.path):
            config = load_config(self.root / run.config, run.overrides)
            output = self.root / config.run.output
            names.append(output.name)
            if self.only not in (None, output.name):
                continue
            copy = self.path.parent / f"{output.name}.state"
            if not (output / STATE_FILE).exists() and copy.exists():
                print(
                    f"{output.name}: resuming at step {unpack(copy, output)} from {copy}",
                    flush=True,
                )
            code = self._clone(run, output)
            # The clone's file counts: the one here may have changed since.
            steps = load_config(code / run.config, run.overrides).schedule.steps
            if _steps(output) < steps:
                if self.stopping:
                    return False
                self._train(run, code, output)
                self._keep(output, copy)
            if _steps(output) < steps:
                return False
            print(f"{output.name}: finished", flush=True)
        if self.only is not None and self.only not in names:
            raise ConfigError(f"{self.path} has no run {self.only}; it has {', '.join(names)}")
        return True

    def stop(self) -> None:
        """Stop the current run after its step."""
        self.stopping = True
        if self._process is not None:
            self._process.terminate()

    def _train(self, run: Run, code: Path, output: Path) -> None:
        command = [sys.executable, "-m", "paragonsr2", "train", str(code / run.config)]
        command += run.overrides
        command += ["--resume"] if (output / STATE_FILE).exists() else []
        environment = {**os.environ, "PYTHONPATH": str(code / "src"), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            command, cwd=self.root, env=environment, stderr=subprocess.PIPE, text=True
        )
        last = ["starting"]
        ended = threading.Event()
        name = output.name
        ticker = threading.Thread(target=_tick, args=(name, last, ended), daemon=True)
        ticker.start()
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                last[0] = line.rstrip()
                if "validation" in line or not line.startswith("step "):
                    print(f"{name}: {last[0]}", flush=True)
        ended.set()
        status = self._process.wait()
        self._process = None
        # A run that is stopped before its first step ends by the signal.
        if status and not (self.stopping and status == -signal.SIGTERM):
            raise ParagonError(f"{name} failed with exit code {status}; its last state is intact")
        print(f"{name}: at step {_steps(output)}", flush=True)

    def _clone(self, run: Run, output: Path) -> Path:
        """The clone that trains a run; it is made if it does not exist."""
        kept = output / COMMIT_FILE
        commit = kept.read_text(encoding="utf-8").strip() if kept.exists() else run.commit
        commit = self._git("rev-parse", commit or "HEAD")
        code = self.root / "runs" / "code" / commit[:12]
        if not code.exists():
            code.parent.mkdir(parents=True, exist_ok=True)
            self._git("clone", "--quiet", "--no-checkout", str(self.root), str(code))
            self._git("-C", str(code), "checkout", "--quiet", commit)
        write_atomic(kept, f"{commit}\n".encode())
        return code

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.root, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ParagonError(f"git {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def _keep(self, output: Path, copy: Path) -> None:
        if not (output / STATE_FILE).exists():
            return
        content = pack(output, (*RECORDS, COMMIT_FILE))
        if len(content) > LIMIT:
            raise ParagonError(
                f"the copy of {output.name} would have {len(content) / 2**20:.1f} MiB, over "
                f"the limit of {LIMIT // 2**20}; the run itself is safe in {output}"
            )
        write_atomic(copy, content)


def _steps(output: Path) -> int:
    path = output / STATE_FILE
    return int(read_state(path)["step"]) if path.exists() else 0


def _tick(name: str, last: Sequence[str], ended: threading.Event) -> None:
    while not ended.wait(60):
        print(f"{time.strftime('%H:%M')} {name}: {last[0]}", flush=True)


def main() -> int:
    """Train a queue; return 0 if it finished or was stopped, 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("queue", type=Path)
    parser.add_argument("--only", metavar="NAME", help="train only this run")
    options = parser.parse_args()
    queue = Queue(options.queue, only=options.only)

    def stop(_number: int, _frame: FrameType | None) -> None:
        queue.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        queue.train()
    except ParagonError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
