"""Write the descriptions of all bundled models to ``docs/models``.

Each model gets a model card (``.md``, for the Hugging Face Hub) and a record for OpenModelDB
(``.json``), both from the catalogue. ``tools/release.py`` calls this; a test fails while they are
out of date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from paragonsr2.files import write_atomic
from paragonsr2.weights.catalogue import Entry, entries

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from benchmark.cards import model_card, openmodeldb  # noqa: E402

FOLDER = ROOT / "docs" / "models"


def texts(entry: Entry) -> dict[str, str]:
    """The file names and contents that describe one bundled model."""
    record = json.dumps(openmodeldb(entry), indent=1, ensure_ascii=False) + "\n"
    return {f"{entry.name}.md": model_card(entry), f"{entry.name}.json": record}


def write_cards() -> None:
    """Write all descriptions, and remove those of models that are no longer bundled."""
    wanted = {name: text for entry in entries() for name, text in texts(entry).items()}
    for name, text in wanted.items():
        write_atomic(FOLDER / name, text.encode())
    for path in FOLDER.iterdir():
        if path.name not in wanted:
            path.unlink()


if __name__ == "__main__":
    write_cards()
