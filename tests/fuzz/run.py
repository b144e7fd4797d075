"""Spoil valid files and ask for each: an output, or a refusal in one line; nothing else.

An output of the right size that differs from that of the unspoiled file must have a note, unless
the damage cannot be known: another decoder, told to be strict, has nothing to say either.

::

    export PYTHONPATH=tests
    python -m fuzz.run --count 10000 --result results/robustness/fuzz_images.json
    python -m fuzz.run --clips --count 1000 --result results/robustness/fuzz_clips.json

One worker process takes many files and is started anew after a crash or a hang. The same seed
makes the same files. Inputs that fail are kept in ``--keep``.
"""

from __future__ import annotations

import argparse
import json
import random
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fuzz.clip_corpus import make_clip_corpus
from fuzz.corpus import make_corpus
from fuzz.looks import Look, differs, is_known_to_others, look
from fuzz.mutate import mutate

#: Seconds after which a case hangs.
HANG = 10.0

#: Seconds that a worker may take to begin.
START = 120.0


class Worker:
    """A process that enlarges what it is told to, restarted when it dies."""

    def __init__(self, stderr: BinaryIO) -> None:
        self._stderr = stderr
        self.start()

    def start(self) -> None:
        """Begin, or begin anew."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr,
        )  # fmt: skip

    def ask(self, source: Path, target: Path, patience: float) -> dict[str, str]:
        """The answer for a file; ``crash`` and ``hang`` are answers too."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = json.dumps([str(source), str(target)]) + "\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            answered = selector.select(patience)
        answer = self.process.stdout.readline() if answered else b""
        if answer:
            return json.loads(answer)
        if answered:
            return {"status": "crash", "message": f"exit {self.close()}", "notes": ""}
        self.process.kill()
        self.close()
        return {"status": "hang", "message": f"no answer in {patience} s", "notes": ""}

    def close(self) -> int:
        """End the process; its exit status."""
        self.process.communicate()
        return self.process.returncode


@dataclass
class Report:
    """What came of the cases.

    Attributes:
        counts: cases by what came of them, ``done``, ``noted`` and ``failed`` being right.
        unlike: outputs of the right size, with more than a twentieth of the samples off by more
            than a tenth, by whether a note says so, or nobody can know, or neither.
        by_format: the same for each suffix.
        refused_unspoiled: files that are refused as they are, and why.
        noted_unspoiled: files that are done with a note as they are.
        wrong: the cases that were neither an output nor a line.
        slowest: seconds of the slowest case.
        work_folders: of clips that broke off, which keep what is done to go on from there.
        stderr: what libraries printed by themselves; it should be nothing.
    """

    counts: Counter[str] = field(default_factory=Counter)
    unlike: Counter[str] = field(default_factory=Counter)
    by_format: dict[str, Counter[str]] = field(default_factory=dict)
    refused_unspoiled: dict[str, str] = field(default_factory=dict)
    noted_unspoiled: dict[str, str] = field(default_factory=dict)
    wrong: list[dict[str, str]] = field(default_factory=list)
    slowest: float = 0.0
    work_folders: int = 0
    stderr: str = ""


def target_of(source: Path) -> Path:
    """Where the output of a case goes: what is not written, or slowly, becomes something else."""
    suffix = {".avif": ".png", ".avi": ".mkv", ".ts": ".mkv"}.get(source.suffix, source.suffix)
    return source.parent / "out" / f"{source.stem}{suffix}"


def judge(answer: dict[str, str], target: Path) -> str:
    """What is wrong with an answer, or its status."""
    status, message = answer["status"], answer["message"]
    if status == "done":
        if not target.is_file() or not target.stat().st_size:
            return "no output"
        return "noted" if answer["notes"] else "done"
    if status == "failed":
        if len(message.splitlines()) != 1 or "Traceback" in message:
            return "no single line"
        return "partial output" if target.exists() else "failed"
    return status


def fuzz(
    corpus: dict[str, bytes],
    cases: int,
    seed: int,
    keep: Path | None = None,
    patience: float = HANG,
) -> Report:
    """Spoil ``cases`` files of ``corpus``, all in turn, and see what becomes of them."""
    names = sorted(corpus)
    report = Report()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as stderr:
        worker = Worker(stderr)
        looks: dict[str, Look | None] = {}
        for name in names:
            source = Path(folder, name)
            target = target_of(source)
            source.write_bytes(corpus[name])
            # The first answer waits for the start of Python.
            answer = worker.ask(source, target, START)
            if answer["status"] != "done":
                report.refused_unspoiled[name] = answer["message"].replace(folder, "")
            elif answer["notes"]:
                report.noted_unspoiled[name] = answer["notes"]
            looks[name] = look(target) if target.exists() else None
            target.unlink(missing_ok=True)
        whole = Path(folder, names[0])
        for number in range(cases):
            name = names[number % len(names)]
            rng = random.Random(f"{seed}-{number}")
            content = mutate(corpus[name], rng)
            source = Path(folder, f"{number}-{name}")
            source.write_bytes(content)
            target = target_of(source)
            started = time.perf_counter()
            answer = worker.ask(source, target, patience)
            report.slowest = max(report.slowest, time.perf_counter() - started)
            verdict = judge(answer, target)
            if verdict in ("done", "noted") and differs(looks[name], look(target)):
                known = (
                    "noted"
                    if verdict == "noted"
                    else is_known_to_others(source, Path(folder, name))
                )
                report.unlike[known] += 1
                if known == "known to others":
                    verdict = "silent"
            report.counts[verdict] += 1
            report.by_format.setdefault(source.suffix[1:], Counter())[verdict] += 1
            if verdict not in ("done", "noted", "failed"):
                report.wrong.append({"case": source.name, "what": verdict, **answer})
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / source.name).write_bytes(content)
            if answer["status"] in ("crash", "hang"):
                worker.start()
                worker.ask(whole, target_of(whole), START)
                target_of(whole).unlink(missing_ok=True)
            source.unlink()
            target.unlink(missing_ok=True)
        left = [path.name for path in Path(folder).glob("out/*") if not path.is_dir()]
        report.work_folders = sum(path.is_dir() for path in Path(folder).glob("out/.*"))
        if left:
            report.wrong.append({"case": "all", "what": "leftovers", "message": str(left[:5])})
        worker.close()
        stderr.seek(0)
        report.stderr = stderr.read().decode(errors="replace")[-2000:]
    return report


def main() -> None:
    """Fuzz and write the result file; exit 1 if anything was wrong."""
    import av
    import pyvips

    from paragonsr2.measure.machine import write_result

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", action="store_true", help="clips in place of images")
    parser.add_argument("--count", type=int, default=2000, help="number of spoiled files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for inputs that went wrong")
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_clip_corpus(Path(folder)) if options.clips else make_corpus()
    report = fuzz(corpus, options.count, options.seed, options.keep)
    kind = "clips" if options.clips else "images"
    result = {
        "what": f"spoiled {kind} through the upscaler, in a worker process",
        "cases": options.count,
        "seed": options.seed,
        "files": len(corpus),
        "refused_unspoiled": report.refused_unspoiled,
        "noted_unspoiled": report.noted_unspoiled,
        "counts": dict(report.counts),
        "unlike_the_unspoiled": dict(report.unlike),
        "by_format": {key: dict(value) for key, value in sorted(report.by_format.items())},
        "wrong": report.wrong,
        "work_folders_left": report.work_folders,
        "stderr": report.stderr,
        "slowest_seconds": round(report.slowest, 2),
        "seconds": round(time.perf_counter() - started, 1),
        "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
        "av": av.__version__,
    }
    print(json.dumps(result, indent=1))
    if options.result:
        write_result(options.result, result)
    sys.exit(1 if report.wrong or report.stderr else 0)


if __name__ == "__main__":
    main()
