"""Small files that claim a gigapixel, and what it costs to refuse them.

::

    PYTHONPATH=tests python -m fuzz.bombs --result results/robustness/bombs.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 40_000


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(
        ">I", zlib.crc32(kind + content)
    )  # fmt: skip


def _png() -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
    data = _chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    return b"\x89PNG\r\n\x1a\n" + header + data + _chunk(b"IEND", b"")


def _png_of_many_frames() -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1000, 1000, 8, 0, 0, 0, 0))
    claim = _chunk(b"acTL", struct.pack(">II", 1100, 0))
    data = _chunk(b"IDAT", zlib.compress(bytes(1001 * 1000)))
    return b"\x89PNG\r\n\x1a\n" + header + claim + data + _chunk(b"IEND", b"")


def _gif() -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    image = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    return screen + image + b"\x02\x02\x44\x01\x00;"


def _gif_of_many_frames() -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", 1000, 1000, 0x80, 0, 0) + bytes(6)
    image = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return screen + image * 1100 + b";"


def _tiff() -> bytes:
    entries = [
        (256, 4, 1, SIDE), (257, 4, 1, SIDE), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, SIDE), (279, 4, 1, SIDE * SIDE),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory


def _patched(kind: str, mark: bytes, skip: int, size: bytes, **options: object) -> bytes:
    """A small picture whose file claims another size at ``mark``."""
    out = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(out, kind, **options)
    data = bytearray(out.getvalue())
    at = data.index(mark) + skip
    data[at : at + len(size)] = size
    return bytes(data)


def make_bombs() -> dict[str, bytes]:
    """Files of a few kilobytes that claim 1 gigapixel or more, by name."""
    side = struct.pack("<I", SIDE - 1)[:3]
    frames = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (0, 255)]
    return {
        "bomb.png": _png(),
        "frames.png": _png_of_many_frames(),
        "bomb.gif": _gif(),
        "frames.gif": _gif_of_many_frames(),
        "bomb.tif": _tiff(),
        "bomb.webp": _patched(
            "webp", b"VP8X", 12, side * 2, save_all=True, append_images=frames[1:]
        ),
        "bomb.avif": _patched("avif", b"ispe", 8, struct.pack(">II", SIDE, SIDE)),
        "bomb.jpg": _patched("jpeg", b"\xff\xc0", 5, struct.pack(">HH", 65_000, 65_000)),
    }


def refuse(*paths: Path) -> dict[str, object]:
    """Give files to the command, in a process of its own; what it said, and its peak."""
    command = [sys.executable, "-m", "paragonsr2", "upscale", *map(str, paths), "-m", "magic"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    said, printed = process.stderr.read(), process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    process.stderr.close()
    return {
        "code": process.returncode,
        "stderr": said,
        "stdout": printed,
        "seconds": round(time.perf_counter() - started, 3),
        # On a busy machine this tells more than the clock.
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        # Kilobytes on Linux, bytes on macOS.
        "peak_mb": round(usage.ru_maxrss / (1e3 if sys.platform != "darwin" else 1e6), 1),
    }


def main() -> None:
    """Measure and write the result file."""
    from paragonsr2.measure.machine import write_result

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in make_bombs().items():
            path = Path(folder, name)
            path.write_bytes(content)
            report = refuse(path)
            report["stderr"] = str(report["stderr"]).replace(f"{folder}/", "")
            found[name] = {"bytes": len(content), **report}
    print(json.dumps(found, indent=1))
    if options.result:
        what = "one call of the command for each file, start of Python included"
        write_result(options.result, {"what": what, "files": found})


if __name__ == "__main__":
    main()
