"""The page's files: the built page of this package, and the bundled Realtime models."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from paragonsr2.errors import WeightsError
from paragonsr2.files import write_atomic
from paragonsr2.shaders.reading import read_program
from paragonsr2.shaders.wgsl import write_wgsl
from paragonsr2.weights.catalogue import bundled_bytes, find

#: Built from ``web/`` of the repository by ``make web``.
PAGE = Path(__file__).parent / "page"
SCALES = (2, 4)

_WORKER = "sw.js"
_VERSION = b"@VERSION@"


@cache
def page_files() -> dict[str, bytes]:
    """All files of the page by their path in it, with ``/`` between folders.

    Models are written from the bundled weights, so that new weights need nothing else. The service
    worker gets a digest of everything else, so that a browser that keeps the page takes a new one.

    Raises:
        WeightsError: the package lacks the page or its weights.
    """
    built = {
        path.relative_to(PAGE).as_posix(): path.read_bytes()
        for path in sorted(PAGE.rglob("*"))
        if path.is_file()
    }
    if _WORKER not in built:
        raise WeightsError("the package lacks the page; reinstall, or build it: make web")
    files = built | _models()
    kept = [name for name in files if name != _WORKER]
    files["files.json"] = json.dumps(["./", *sorted(kept)]).encode()
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
    files[_WORKER] = built[_WORKER].replace(_VERSION, digest.hexdigest()[:16].encode())
    return files


def _models() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    table: list[dict[str, object]] = []
    for scale in SCALES:
        name = f"realtime_x{scale}"
        content = bundled_bytes(find("realtime", scale), "onnx")
        program = read_program(content, f"{name}.onnx")
        models = {"onnx": f"{name}.onnx", "wgsl": f"{name}.wgsl.json"}
        table.append({"scale": scale, "reach": program.reach, **models})
        files[f"models/{name}.onnx"] = content
        files[f"models/{name}.wgsl.json"] = write_wgsl(program).encode()
    files["models/models.json"] = json.dumps({"models": table}, indent=1).encode()
    return files


def write_page(folder: Path) -> None:
    """Write the page into a folder; other files there stay.

    Raises:
        WeightsError: the package lacks the page or its weights.
        OutputError: a file cannot be written.
    """
    files = page_files()
    # The service worker last: it makes browsers take all the others.
    for name in sorted(files, key=lambda name: name == _WORKER):
        write_atomic(folder / name, files[name])
