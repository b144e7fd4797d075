"""Each room imports only what CONTRIBUTING.md says it may."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from conftest import ROOT

SOURCE = ROOT / "src" / "paragonsr2"


def allowed():
    """The table of CONTRIBUTING.md: room to the rooms it may import."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \| [^|]* \| ([^|]*) \|$", text, flags=re.MULTILINE)
    return {room: set(re.findall(r"`([a-z_]+)`", names)) for room, names in rows}


def room_of(path):
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, []


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_stay_inside_the_map(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    may = allowed()[room] | {room}
    for module, _ in imported(path):
        parts = module.split(".")
        # What is not in the wheel.
        assert parts[0] not in ("benchmark", "tools", "tests"), f"{room} imports {module}"
        if parts[0] == "paragonsr2" and len(parts) > 1:
            assert parts[1] in may, f"{room} imports {parts[1]}"


def test_the_map_names_every_room():
    rooms = {room_of(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms == set(allowed())


def test_the_map_has_no_cycle():
    rooms = allowed()
    while rooms:
        free = [room for room, needs in rooms.items() if not needs & set(rooms)]
        assert free, f"cycle among {sorted(rooms)}"
        for room in free:
            del rooms[room]


@pytest.mark.parametrize(
    "room",
    [
        "images.reading",
        "images.writing",
        "clips.frames",
        "upscale.job",
        "weights.catalogue",
        "cli.main",
    ],
)
def test_the_core_works_without_torch(room):
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'PIL', 'onnx', 'safetensors', 'pydantic'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"import paragonsr2.{room}\n"
        "import paragonsr2; up = paragonsr2.Upscaler('magic', 2)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
