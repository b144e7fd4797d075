"""Build the documentation as a website: the Markdown of the repository, and an API reference.

The pages and what they link to are copied into ``build/pages`` under the same relative paths, so
that their links hold there too. For each room of the package a page is added, which mkdocstrings
fills from the docstrings. Zensical makes HTML of it in ``build/site``; ``--strict`` fails on any
warning.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "build" / "pages"
PACKAGE = ROOT / "src" / "paragonsr2"

#: Pages that begin the site; what they link to follows.
FIRST = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")

_LINK = re.compile(r"\]\(([^)#\s]+)")


def linked(page: Path) -> list[Path]:
    """Files of the repository that a page links to; a folder stands for its README."""
    found: list[Path] = []
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path = (page.parent / link).resolve()
        if path.is_dir():
            path /= "README.md"
        if path.is_file() and path.is_relative_to(ROOT):
            found.append(path)
    return found


def stage() -> None:
    """Copy all Markdown of ``docs`` and everything that is linked into ``build/pages``."""
    shutil.rmtree(PAGES, ignore_errors=True)
    waiting = [*(ROOT / name for name in FIRST), *(ROOT / "docs").rglob("*.md")]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        place = PAGES / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        if path.suffix == ".md":
            waiting += linked(path)
    shutil.copyfile(PAGES / "README.md", PAGES / "index.md")


def rooms() -> dict[str, list[str]]:
    """Modules of the package by room."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1].startswith("_"):
            continue
        found.setdefault(parts[0], []).append(".".join(("paragonsr2", *parts)))
    return found


def write_reference() -> None:
    """One page for each room, which mkdocstrings fills."""
    folder = PAGES / "api"
    folder.mkdir(parents=True)
    lines = ["# API reference\n", "Made from the docstrings; one page for each room.\n"]
    for room, modules in rooms().items():
        blocks = [f"# {room}\n", *(f"::: {module}\n" for module in modules)]
        (folder / f"{room}.md").write_text("\n".join(blocks), encoding="utf-8")
        lines.append(f"- [{room}]({room}.md)")
    (folder / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Stage the pages and build the site."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true")
    options = parser.parse_args()
    stage()
    write_reference()
    command = [sys.executable, "-m", "zensical", "build", "--clean"]
    if options.strict:
        command.append("--strict")
    sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
