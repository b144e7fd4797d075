"""What the README and the docs tell the reader to type or to open is there."""

import re
from itertools import chain
from pathlib import Path

import pytest
import typer

from paragonsr2.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
COMMANDS = typer.main.get_command(app).commands
#: A command ends where a comment or another command begins.
LINE = re.compile(r"(?:^|`|\$ )paragonsr2 ([a-z]+)((?:[^`\n#|;&]|\\\n)*)", re.MULTILINE)
FILE = re.compile(r"\b(?:configs|tools|benchmark|results|examples|integrations)/[\w./-]*\w\.\w+")


def options_of(command):
    """All flags of a command."""
    return set(chain.from_iterable([*p.opts, *p.secondary_opts] for p in command.params))


@EACH
def test_every_command_exists(page):
    for name, rest in LINE.findall(page.read_text(encoding="utf-8")):
        assert name in COMMANDS, f"paragonsr2 {name}"
        flags = set(re.findall(r"(?<=\s)(--?[a-z][\w-]*)", rest))
        assert flags <= options_of(COMMANDS[name]) | {"--help"}, f"paragonsr2 {name}{rest}"


@EACH
def test_every_file_exists(page):
    named = FILE.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
