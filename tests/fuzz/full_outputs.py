"""Fill the disk under each kind of output: a line must say so, and no file may be half or lost.

As root, for the small disk is a file system in memory that is mounted for the purpose::

    PYTHONPATH=tests python -m fuzz.full_outputs --result results/robustness/full_outputs.json

A command first runs with room. Then it runs where the files of an earlier run lie, with no room, or
with room for a part of what it writes: each file must then be the earlier one or the new one, and
whole. With room again, the same command must give what it gave at first. Training has a program of
its own, ``fuzz.full_disk``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from clips import make_clip, regular
from fuzz.models import Worker
from paragonsr2.files import is_temporary
from paragonsr2.measure.machine import write_result
from paragonsr2.weights.catalogue import find

DISK = 20 * 2**20
BALLAST = "ballast"
OLDER = b"what an earlier run wrote"

#: Room that is left, as a part of what the command writes.
SHARES = (0.0, 0.4, 0.95)


@dataclass(frozen=True)
class Kind:
    """A kind of output.

    Attributes:
        name: of the kind.
        arguments: of the command; ``OUT`` is the folder of outputs, and ``IN`` that of inputs.
        same: the command writes the same bytes each time.
        adds: it puts the result beside the earlier one, as another version.
        steps: it tells its steps, a line each.
        shares: room that is left.
    """

    name: str
    arguments: str
    same: bool = True
    adds: bool = False
    steps: bool = False
    shares: tuple[float, ...] = SHARES


def kinds() -> Iterator[Kind]:
    """All kinds of outputs that a command writes."""
    for suffix in ("png", "jpg", "webp", "tif", "avif", "gif"):
        yield Kind(suffix, f"upscale IN/a.png -o OUT/a.{suffix} -m magic --overwrite")
    yield Kind("folder", "upscale IN/pictures -o OUT/many -m magic --overwrite")
    for suffix in ("mp4", "mkv", "webm", "mov"):
        # WebM takes no AAC.
        given = "silent" if suffix == "webm" else "clip"
        clip = f"upscale IN/{given}.mkv -o OUT/clip.{suffix} -m magic --segment 4 --overwrite"
        yield Kind(suffix, clip + (" --codec av1 --preset 12" if suffix == "webm" else ""))
    yield Kind("animation", "upscale IN/moving.gif -o OUT/moving.gif -m magic --overwrite")
    yield Kind("scores", "evaluate IN/pictures -m magic --result OUT/r.json", same=False)
    times = "--resolution 64x48 --calls 1 --warmup 0 --threads 1"
    order = f"benchmark -m paragonsr2_realtime_x2_art {times} -o OUT/b.json"
    # How long the numbers are varies, so that what needs little more room may fit.
    yield Kind("times", order, same=False, steps=True, shares=(0.0, 0.4))
    yield Kind("export onnx", "export -m IN/m.safetensors -o OUT/x", shares=(0.6,))
    for form in ("ncnn", "glsl", "wgsl", "triton"):
        order = f"export -m realtime -o OUT/x --format {form}"
        yield Kind(f"export {form}", order, adds=form == "triton", shares=(0.0, 0.6))
    yield Kind("web", "web -o OUT/page")


def make_inputs(folder: Path) -> None:
    """The inputs of all kinds."""
    rng = np.random.default_rng(1)
    (folder / "pictures").mkdir()
    noise = [rng.integers(0, 255, (160, 200, 3), np.uint8) for _ in range(4)]
    Image.fromarray(noise[0]).save(folder / "a.png")
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"pictures/{number}.png")
    frames = [Image.fromarray(pixels) for pixels in noise]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=40)
    for name, sounds in (("clip", 1), ("silent", 0)):
        make_clip(
            folder / f"{name}.mkv", regular(12), size=(96, 64), sounds=sounds,
            pictures=lambda *_: rng.integers(0, 65535, (64, 96, 3), np.uint16),
        )  # fmt: skip
    (folder / "m.safetensors").write_bytes(find("realtime", 2).file("safetensors").read())


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a small disk in memory."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def leave(disk: Path, rest: int) -> None:
    """Fill the disk, so that ``rest`` bytes are left, in whole pages."""
    size = shutil.disk_usage(disk).free // 4096 - rest // 4096
    # Who writes at the same time may take the last pages.
    with contextlib.suppress(OSError):
        (disk / BALLAST).write_bytes(bytes(4096) * size)


def files_in(folder: Path) -> dict[str, bytes]:
    """Content of all files below, except what keeps an unfinished clip to be resumed."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name != BALLAST
        and not any("paragonsr2-part" in part for part in path.parts)
    }


def clear(folder: Path) -> None:
    """Remove all that is in a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def check(kind: Kind, worker: Worker, inputs: Path, peace: Path, disk: Path) -> dict[str, object]:
    """What a kind said for each share of room, and what was wrong."""

    def run(folder: Path) -> tuple[object, list[str]]:
        words = kind.arguments.replace("OUT", str(folder)).replace("IN", str(inputs)).split()
        told = worker.ask(words, cold=False)
        said = str(told["stderr"]).replace(f"{folder}/", "").replace(f"{inputs}/", "")
        return told["code"], said.strip().splitlines()

    wrong: list[str] = []
    said: list[str] = []
    code, lines = run(peace)
    wanted = files_in(peace)
    if code or not wanted:
        wrong.append(f"with room: exit status {code}: {lines[-1:]}")
    needed = sum(-(-len(content) // 4096) * 4096 for content in wanted.values())
    for share in kind.shares if wanted else ():
        for name in wanted:
            (disk / name).parent.mkdir(parents=True, exist_ok=True)
            (disk / name).write_bytes(OLDER)
        leave(disk, int(needed * share))
        code, lines = run(disk)
        said.append(next((line for line in lines if "No space" in line), " / ".join(lines))[:200])
        if code not in (1, 2, 3) or not any("No space left" in line for line in lines):
            wrong.append(f"room for {share}: exit status {code}: {lines[-3:]}")
        told = lines[-1:] if kind.steps else lines
        if len(told) > 2 + len(wanted) or any("Traceback" in line for line in lines):
            wrong.append(f"room for {share}: {len(lines)} lines: {lines[-3:]}")
        for name, content in files_in(disk).items():
            if is_temporary(Path(name)):
                wrong.append(f"room for {share}: {name} is left")
            elif content != OLDER and (kind.same and content != wanted.get(name)):
                wrong.append(f"room for {share}: {name} is neither the older one nor whole")
        lost = wanted.keys() - files_in(disk).keys()
        wrong += [f"room for {share}: {name} is lost" for name in sorted(lost)]
        (disk / BALLAST).unlink()
        code, lines = run(disk)
        after = files_in(disk)
        right = after.keys() == wanted.keys() and (not kind.same or after == wanted)
        if kind.adds:
            right = set(wanted.values()) <= set(after.values())
        if code or not right:
            wrong.append(f"with room again: exit status {code}: {lines[-1:]} {sorted(after)}")
        clear(disk)
    clear(peace)
    return {"files": len(wanted), "bytes": needed, "said": said, "wrong": wrong}


def check_events(inputs: Path, disk: Path) -> dict[str, object]:
    """Progress and results as JSON go into a file of the full disk."""
    leave(disk, 0)
    target = inputs / "events.png"
    command = [sys.executable, "-m", "paragonsr2", "upscale", f"{inputs}/a.png", "-m", "magic"]
    with (disk / "events.jsonl").open("wb") as events:
        done = subprocess.run(
            [*command, "--events", "-o", str(target)],
            stdout=events, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    lines = done.stderr.strip().splitlines()
    right = done.returncode in (1, 2, 3) and len(lines) <= 2 and "Traceback" not in done.stderr
    clear(disk)
    wrong = [] if right and target.exists() else [f"exit status {done.returncode}: {lines}"]
    return {"said": lines, "wrong": wrong}


def _post(url: str, content: bytes) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, content), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def _end_of_job(url: str) -> str:
    """The state of a job that has ended, and its message."""
    for _ in range(600):
        with urllib.request.urlopen(url, timeout=60) as answer:
            job = json.load(answer)
        if job["state"] not in ("queued", "running"):
            return f"{job['state']} {job['message']}".strip()
        time.sleep(0.2)
    return "no end"


def check_service(inputs: Path, disk: Path) -> dict[str, object]:
    """The disk of a service fills: requests are refused, the service lives, and nothing is lost."""
    wrong: list[str] = []
    said: dict[str, str] = {}
    command = [sys.executable, "-m", "paragonsr2", "serve", "--port", "0", "--folder", f"{disk}/s"]
    leave(disk, 0)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    said["start"] = done.stderr.strip().replace(str(disk), "")[:200]
    if done.returncode not in (2, 3) or len(done.stderr.strip().splitlines()) != 1:
        wrong.append(f"start: exit status {done.returncode}: {done.stderr[-300:]}")
    clear(disk)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().split()[2]
    clip, picture = (inputs / "clip.mkv").read_bytes(), (inputs / "a.png").read_bytes()
    try:
        for moment in ("room", "full", "room again"):
            if moment == "full":
                leave(disk, 0)
            elif moment == "room again":
                (disk / BALLAST).unlink()
            for what, path, content in (
                ("picture", "/v1/upscale?scale=2", picture),
                ("job", "/v1/jobs?scale=2&name=clip.mkv", clip),
            ):
                status, answer = _post(url + path, content)
                told = answer.decode(errors="replace")[:160] if status >= 300 else ""
                if status == 202:
                    told = _end_of_job(f"{url}/v1/jobs/{json.loads(answer)['id']}")
                said[f"{what}, {moment}"] = f"{status} {told}".strip()
                right = moment == "full" or (status < 300 and told in ("", "done"))
                if not right or status == 500:
                    wrong.append(f"{what}, {moment}: {status} {told}")
    finally:
        process.terminate()
        log = process.communicate(timeout=120)[1]
    if process.returncode not in (0, 143) or "Traceback" in log:
        wrong.append(f"end: exit status {process.returncode}: {log[-600:]}")
    clear(disk)
    return {"said": said, "wrong": wrong}


def main() -> None:
    """Fill, run, compare, and write the result file; exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", help="only this one")
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name, "disk")) as disk:
        inputs, peace = Path(name, "in"), Path(name, "peace")
        inputs.mkdir()
        peace.mkdir()
        make_inputs(inputs)
        worker = Worker()
        for kind in kinds():
            if options.kind in (None, kind.name):
                found[kind.name] = check(kind, worker, inputs, peace, disk)
                print(kind.name, json.dumps(found[kind.name]), flush=True)
        worker.close()
        for title, look in (("events", check_events), ("service", check_service)):
            if options.kind in (None, title):
                found[title] = look(inputs, disk)
                print(title, json.dumps(found[title]), flush=True)
    wrong = {title: about["wrong"] for title, about in found.items() if about["wrong"]}
    result = {
        "what": "each kind of output on a disk of 20 MB that has no room, or room for a part",
        "kinds": found,
        "wrong": wrong,
    }
    if options.result:
        write_result(options.result, result)
    print(json.dumps(wrong, indent=1))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
