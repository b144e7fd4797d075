"""Which good files libvips refuses when it may not warn: the reason why a warning is a note.

A good file is one that Pillow, another decoder, reads without an error or a warning::

    PYTHONPATH=tests python -m fuzz.decode_levels FOLDER... --result \\
        results/robustness/decode_levels.json

The folders of the result file: the test images of Pillow's source archive, which come from many
cameras, scanners and programs, and the photographs and drawings of the training data.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import pyvips
from PIL import Image

from paragonsr2.errors import ImageError
from paragonsr2.images.formats import SIGNATURE_BYTES, complaint, recognise
from paragonsr2.images.loading import open_image
from paragonsr2.measure.machine import write_result

LEVELS = ("error", "warning")


def is_good(path: Path) -> bool:
    """Whether Pillow reads the first page of the file without any complaint."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            with Image.open(path) as image:
                image.load()
        except Exception:
            return False
    return True


def refusal(path: Path, level: str) -> str:
    """Why libvips refuses the first page at this level; empty if it does not."""
    try:
        open_image(path, fail_on=level).copy_memory()  # pyright: ignore[reportArgumentType]
    except pyvips.Error as error:
        return complaint(error)
    except ImageError as error:
        return str(error)
    return ""


def survey(folders: list[Path]) -> dict[str, object]:
    """Decode every good file under the folders at each level."""
    files: Counter[str] = Counter()
    refused: dict[str, Counter[str]] = {level: Counter() for level in LEVELS}
    reasons: dict[str, dict[str, str]] = defaultdict(dict)
    not_good = 0
    for path in sorted(file for folder in folders for file in folder.rglob("*") if file.is_file()):
        with path.open("rb") as file:
            form = recognise(file.read(SIGNATURE_BYTES))
        if form is None:
            continue
        if not is_good(path):
            not_good += 1
            continue
        files[form.title] += 1
        for level in LEVELS:
            why = refusal(path, level)
            if why:
                refused[level][form.title] += 1
                reasons[path.name][level] = why
    return {
        "what": "good files of many writers that libvips refuses at each level of fail_on",
        "good_files": files.total(),
        "not_good_and_left_out": not_good,
        "by_format": dict(files),
        "refused": {level: dict(count) for level, count in refused.items()},
        "refused_in_all": {level: count.total() for level, count in refused.items()},
        "refused_for_warnings_alone": sum("error" not in why for why in reasons.values()),
        "reasons": reasons,
        "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
    }


def main() -> None:
    """Survey, print, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    result = survey(options.folders)
    print(json.dumps(result, indent=1))
    if options.result:
        write_result(options.result, result)


if __name__ == "__main__":
    main()
