"""Run the verbs in surroundings that are not a developer's: each must work, or say why in a line.

As root, for it takes that to become another user, to hide folders and to fill them::

    PYTHONPATH=tests python -m fuzz.surroundings --result results/robustness/surroundings.json

Each command is a process in a mount namespace of its own, so that nothing of it reaches the
machine. The interpreter and the package are put where every user may read them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import paragonsr2
from clips import make_clip, regular
from fuzz.kill_training import prepare
from paragonsr2.measure.machine import write_result
from paragonsr2.weights.catalogue import find

NOBODY, NAMELESS = 65534, 54321
SERVICE = "an answer of the service"
PATIENCE = 300

#: Names that are no ASCII, and one that is no text at all.
STRANGE = ("ä 日本 🐟.png", os.fsdecode(b"caf\xe9 \xff.png"), "new\nline.png")


_USUAL = ("picture", "folder", "clip", "standard input", "models", "evaluate", "serve")
_NAMES = ("picture", "folder", "evaluate")
_WITH_FILES = ("picture", "standard input", "inspect .pth", "export ncnn")


@dataclass(frozen=True)
class Place:
    """Surroundings of a command.

    Attributes:
        name: what is special.
        shell: what root does first, in the namespace; ``$WORK`` is the folder of the case.
        environment: variables beside PATH and PYTHONPATH.
        user: number of the user who runs the command.
        works: every verb must succeed; else those that cannot must say so.
        streams: redirections of the command.
        strange: the picture has other names.
        verbs: that are run; none means all.
    """

    name: str
    shell: str = ""
    environment: dict[str, str] = field(default_factory=dict[str, str])
    works: bool = True
    verbs: tuple[str, ...] = _USUAL
    user: int = NOBODY
    streams: str = ""
    strange: bool = False


def _full(folder: str, rest: int = 0) -> str:
    """Hide a folder behind one that has room for ``rest`` pages of memory."""
    fill = f"dd if=/dev/zero of={folder}/ballast bs=4096 count={16 - rest} 2>/dev/null || true"
    return f"mount -t tmpfs -o size=64k,mode=1777 none {folder}; {fill};"


_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")
_NO_TEMPORARY = "".join(_full(folder) for folder in _TEMPORARY)
_LITTLE_TEMPORARY = "".join(_full(folder, 3) for folder in _TEMPORARY)
_HOME = {"HOME": "$WORK/home"}
_TMPDIR = {"HOME": "$WORK/home", "TMPDIR": "$WORK/t"}
_ASCII = {
    "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"
}  # fmt: skip

PLACES = (
    Place("a user without a name or a home", user=NAMELESS, verbs=()),
    Place("read-only folders", "chown 0 $WORK/out;", _HOME, works=False, verbs=()),
    Place("no room in any temporary folder", _NO_TEMPORARY, _HOME, works=False, verbs=()),
    Place("little room in every temporary folder", _LITTLE_TEMPORARY, _HOME, False, _WITH_FILES),
    Place("a locale of C", environment=_HOME | _ASCII, verbs=(*_USUAL, "train")),
    Place("strange names in a locale of C", "", _HOME | _ASCII, verbs=_NAMES, strange=True),
    Place("strange names", "", _HOME, verbs=_NAMES, strange=True),
    Place("a folder that is gone", "mkdir -p g; cd g; rmdir $WORK/g;", _HOME, False, ()),
    Place("a full standard output", "", _HOME, False, ("models", *_NAMES), streams=">/dev/full"),
    Place("closed standard streams", "", _HOME, False, _USUAL, streams="<&- >&- 2>&-"),
    Place("a read-only home", "chown 0 $WORK/home;", _HOME),
    Place("a home that is not there", environment={"HOME": "/nonexistent"}),
    Place("a full /tmp", _full("/tmp"), _HOME, verbs=_WITH_FILES),
    Place("a full TMPDIR", "mkdir -p t;" + _full("$WORK/t"), _TMPDIR, verbs=_WITH_FILES),
    Place("a TMPDIR that is not there", "", _TMPDIR, verbs=_WITH_FILES),
    Place("a user without rights", environment=_HOME),
)


def readable_to_all() -> str:
    """Shell commands of root that show every user the interpreter, where it is private."""
    commands: list[str] = []
    for number, folder in enumerate({Path(sys.base_prefix), Path(sys.prefix)}):
        private = [up for up in reversed(folder.parents) if up.stat().st_mode & 5 != 5]
        if private:
            held = f"/mnt/{number}"
            commands.append(
                f"mount -t tmpfs none /mnt; mkdir {held}; mount --bind {folder} {held};"
                f"mount -t tmpfs -o mode=755 none {private[0]}; mkdir -p {folder};"
                f"mount --bind {held} {folder}; umount -l /mnt;"
            )
    return "".join(commands)


@dataclass
class Case:
    """A folder of inputs for one place, and the commands over it."""

    place: Place
    work: Path
    packages: Path

    def fill(self, templates: Path) -> None:
        """Lay out inputs that the user may read, and folders that are the user's own."""
        shutil.copytree(templates, self.work, dirs_exist_ok=True)
        for name in ("out", "home"):
            (self.work / name).mkdir()
            os.chown(self.work / name, self.place.user, self.place.user)
        if self.place.strange:
            for name in STRANGE:
                shutil.copy(self.work / "in/a.png", self.work / "in" / name)

    def verbs(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Name, arguments and expected outputs of each command."""
        work, out = str(self.work), f"{self.work}/out"
        name = STRANGE[1] if self.place.strange else "a.png"
        yield "picture", ["upscale", f"{work}/in/{name}", "-o", f"{out}/{name}"], [name]
        names = [*STRANGE, "a.png"] if self.place.strange else ["a.png"]
        yield (
            "folder",
            ["upscale", f"{work}/in", "-o", f"{out}/all", "-m", "magic"],
            [f"all/{name}" for name in names],
        )
        clip = ["upscale", f"{work}/clip.mkv", "-o", f"{out}/clip.mkv", "-m", "magic"]
        yield "clip", clip, ["clip.mkv"]
        yield "standard input", ["upscale", "-", "-o", f"{out}/s.png", "-m", "magic"], ["s.png"]
        yield "models", ["models"], []
        yield "inspect", ["inspect", f"{work}/m.safetensors"], []
        yield "inspect .pth", ["inspect", f"{work}/m.pth"], []
        yield "evaluate", ["evaluate", f"{work}/in", "--result", f"{out}/r.json"], ["r.json"]
        export = ["export", "-m", f"{work}/m.safetensors", "-o", f"{out}/x"]
        yield "export", export, ["x/paragonsr2_realtime_fp32.onnx"]
        yield "export ncnn", [*export[:3], "-o", f"{out}/n", "--format", "ncnn"], ["n"]
        run = f"run.output={out}/run"
        yield "train", ["train", f"{work}/config.toml", run], ["run/last.state"]

    def start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        """Start a command in its surroundings."""
        place = self.place
        variables = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(self.packages), "OMP_NUM_THREADS": "1",
            **place.environment,
        }  # fmt: skip
        given = [
            f"{key}={value.replace('$WORK', str(self.work))}" for key, value in variables.items()
        ]
        become = ["setpriv", f"--reuid={place.user}", f"--regid={place.user}", "--clear-groups"]
        program = ["env", "-i", *given, sys.executable, "-m", "paragonsr2", *arguments]
        script = f'set -e; cd "$WORK"; {readable_to_all()} {place.shell} exec "$@" {place.streams}'
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, "sh", *become, *program],
            env={**os.environ, "WORK": str(self.work)},
            stdin=(self.work / "large.png").open("rb"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def judge(self, code: int, said: str, outputs: list[str]) -> str:
        """What is wrong with the end of a command; empty if nothing is."""
        missing = [name for name in outputs if not (self.work / "out" / name).exists()]
        if "Traceback" in said or code not in (0, 1, 2, 3):
            return f"exit status {code}"
        if code == 0:
            return f"no {missing[0]}" if missing else ""
        # A service needs a place for its files, and may ask for one.
        if self.place.works and outputs != [SERVICE]:
            return "does not work"
        if "2>" in self.place.streams:
            return ""
        lines = [line for line in said.splitlines() if not line.startswith(("step", "encod"))]
        return "" if 1 <= len(lines) <= 2 else f"{len(lines)} lines"


def serve_once(case: Case) -> tuple[str, str]:
    """Start the service, send a picture, end it; what was said, and what is wrong."""
    quiet = ">" in case.place.streams
    process = case.start(["serve", "--port", "0"])
    assert process.stdout is not None
    assert process.stderr is not None
    wrong = ""
    try:
        told = "" if quiet else process.stdout.readline().decode()
        found = re.search(r"http://\S+", told)
        if found:
            picture = (case.work / "in/a.png").read_bytes()
            request = urllib.request.Request(f"{found[0]}/v1/upscale?scale=2", picture)
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                if not answer.read():
                    wrong = "no picture"
        elif not quiet:
            code = process.wait(PATIENCE)
            said = process.stderr.read().decode(errors="replace")
            return said, case.judge(code, said, [SERVICE])
        else:
            # Nobody can be told where it listens; it must only not fall over.
            time.sleep(5)
    except OSError as error:
        wrong = f"no answer: {error}"
    if process.poll() is None:
        process.terminate()
    code = process.wait(PATIENCE)
    said = process.stderr.read().decode(errors="replace")
    if "Traceback" in said or code not in (0, 1, 2, 3, 143):
        wrong = wrong or f"exit status {code}"
    return said, wrong


def make_templates(folder: Path) -> None:
    """Inputs of all verbs, which every user may read."""
    from paragonsr2.weights.store import load_checkpoint

    (folder / "in").mkdir()
    noise = np.random.default_rng(1).integers(0, 255, (48, 40, 3), np.uint8)
    Image.fromarray(noise).save(folder / "in/a.png")
    large = np.random.default_rng(2).integers(0, 255, (192, 160, 3), np.uint8)
    Image.fromarray(large).save(folder / "large.png")
    make_clip(folder / "clip.mkv", regular(4))
    found = find("realtime", 2).file("safetensors")
    (folder / "m.safetensors").write_bytes(found.read())
    torch.save(load_checkpoint(folder / "m.safetensors").network.state_dict(), folder / "m.pth")
    config = prepare(folder, steps=4)
    config.write_text(config.read_text().replace(f"{folder}/", ""))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def main() -> None:
    """Run every verb in every place, and write the result file; exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", help="only places whose name holds this")
    parser.add_argument("--verb", help="only this verb")
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    told: dict[str, dict[str, str]] = {}
    wrong: list[dict[str, str]] = []
    # Not in /tmp or /var/tmp, which are full for some.
    with tempfile.TemporaryDirectory(dir="/opt") as name:
        home = Path(name)
        home.chmod(0o755)
        packages = home / "packages"
        source = Path(paragonsr2.__file__).parent
        shutil.copytree(
            source, packages / source.name, ignore=shutil.ignore_patterns("__pycache__")
        )
        (home / "templates").mkdir()
        make_templates(home / "templates")
        for number, place in enumerate(PLACES):
            if options.place and options.place not in place.name:
                continue
            case = Case(place, home / str(number), packages)
            case.fill(home / "templates")
            about = told[place.name] = {}

            def note(
                verb: str, said: str, what: str, about: dict[str, str] = about, case: Case = case
            ) -> None:
                last = (said.strip().splitlines() or [""])[0].replace(str(case.work), "")[:200]
                about[verb] = "WRONG: " + what if what else last
                if what:
                    wrong.append({"place": case.place.name, "verb": verb, "said": said[-1500:]})
                print(f"{case.place.name}: {verb}: {about[verb]!r}", flush=True)

            for verb, arguments, outputs in case.verbs():
                if options.verb in (None, verb) and verb in (place.verbs or (verb,)):
                    process = case.start(arguments)
                    _, error = process.communicate(timeout=PATIENCE)
                    said = error.decode(errors="replace")
                    note(verb, said, case.judge(process.returncode, said, outputs))
            if options.verb in (None, "serve") and "serve" in (place.verbs or ("serve",)):
                note("serve", *serve_once(case))
            shutil.rmtree(case.work)
            result = {
                "what": "verbs in surroundings that are not a developer's; first line on stderr",
                "commands": sum(map(len, told.values())),
                "wrong": wrong,
                "said": told,
            }
            # After each place: a later one may take long on a busy machine.
            if options.result:
                write_result(options.result, result)
    print(json.dumps(wrong, indent=1))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
