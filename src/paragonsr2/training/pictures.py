"""Training pictures: found, all checked first, and kept in memory, in the cache or as files."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.errors import TrainingError
from paragonsr2.files import atomic_path, write_atomic
from paragonsr2.measure.quality import crop_to_multiple, shrink
from paragonsr2.training.config import Folder
from paragonsr2.training.data import Pair, Picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
#: Reach of the bicubic shrink beyond a window, in low-resolution pixels.
SHRINK_REACH = 3

Storage = Literal["memory", "mapped", "files"]
Kind = Literal["unreadable", "too small", "size mismatch", "duplicate", "without partner"]


class _Rejected(Exception):
    """A picture cannot be used."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind: Kind = kind


@dataclass(frozen=True)
class Problem:
    """Why a file is left out."""

    kind: Kind
    path: Path
    detail: str


@dataclass(frozen=True)
class Source:
    """A file to train on, with its low-resolution partner if it has one.

    ``shrink`` is the factor by which the picture is reduced before use.
    """

    path: Path
    lr: Path | None = None
    weight: float = 1.0
    shrink: int = 1


@dataclass(frozen=True)
class Report:
    """Result of checking a set of pictures.

    Attributes:
        found: number of files.
        used: number of usable pictures.
        megapixels: of the usable pictures, in high resolution.
        storage: where they are kept.
        problems: why the others are left out.
    """

    found: int
    used: int
    megapixels: float
    storage: Storage
    problems: list[Problem]

    def line(self) -> str:
        """One line for the log."""
        text = f"{self.used} of {self.found} images, {self.megapixels:.0f} megapixels"
        return f"{text}; left out: {self.reasons()}" if self.problems else text

    def reasons(self) -> str:
        """Each kind of problem with its number and first names."""
        kinds = Counter(problem.kind for problem in self.problems)
        parts: list[str] = []
        for kind, count in kinds.most_common():
            names = [p.path.name for p in self.problems if p.kind == kind][:3]
            more = ", ..." if count > len(names) else ""
            parts.append(f"{count} {kind} ({', '.join(names)}{more})")
        return ", ".join(parts)

    def write(self, folder: Path) -> None:
        """Write ``data.json`` and ``data.md`` into ``folder``.

        Raises:
            OutputError: the folder cannot be written.
        """
        table = {
            "found": self.found,
            "used": self.used,
            "megapixels": round(self.megapixels, 3),
            "storage": self.storage,
            "problems": [
                {"kind": p.kind, "path": str(p.path), "detail": p.detail} for p in self.problems
            ],
        }
        write_atomic(folder / "data.json", (json.dumps(table, indent=1) + "\n").encode())
        lines = ["# Training data", "", f"{self.line()}; kept in: {self.storage}.", ""]
        if self.problems:
            lines += ["| left out | file | why |", "|---|---|---|"]
            lines += [f"| {p.kind} | {p.path} | {p.detail} |" for p in self.problems]
        write_atomic(folder / "data.md", ("\n".join(lines).rstrip() + "\n").encode())


def list_images(folder: Path) -> list[Path]:
    """All image files below ``folder``, sorted.

    Raises:
        TrainingError: there is none.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise TrainingError(f"there are no images in {folder}; check the [data] section")
    return files


def list_sources(folder: Folder, scale: int) -> tuple[list[Source], list[Problem]]:
    """The files of a folder, each with its partner, and those without one.

    A partner has the same path below its folder, apart from the suffix; its name may end in the
    scale, as in ``0001x2.png``.

    Raises:
        TrainingError: a folder holds no image.
    """
    files = list_images(folder.path)
    if folder.lr is None:
        shrink = folder.shrink
        return [Source(path, weight=folder.weight, shrink=shrink) for path in files], []
    partners = {_stem(path, folder.lr): path for path in list_images(folder.lr)}
    sources: list[Source] = []
    problems: list[Problem] = []
    for path in files:
        stem = _stem(path, folder.path)
        partner = partners.get(stem) or partners.get(f"{stem}x{scale}")
        if partner is None:
            problems.append(Problem("without partner", path, f"not found in {folder.lr}"))
        else:
            sources.append(Source(path, partner, folder.weight))
    return sources, problems


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def decode(content: bytes, shrink: int = 1) -> Pixels8:
    """Decode with Pillow to ``(H, W, 3)`` uint8, ``shrink`` times smaller than the file.

    Raises:
        ValueError: it is not a picture, is damaged, or has more than 8 bits per channel.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"mode {image.mode}; convert it to 8 bit")
            rgb = image.convert("RGB")
            if shrink > 1:
                size = (rgb.width // shrink, rgb.height // shrink)
                box = (0, 0, size[0] * shrink, size[1] * shrink)
                rgb = rgb.resize(size, Image.Resampling.LANCZOS, box=box)
            return np.asarray(rgb)
    except Exception as error:  # a hostile file can make a decoder raise anything
        raise ValueError(str(error) or type(error).__name__) from error


class FilePicture:
    """A :class:`Picture` that is decoded, and shrunk where it is cut, for each crop anew.

    Args:
        source: its files.
        size: height and width of the low resolution.
        scale: ratio of the two resolutions.
        digest: of the content of its files.
    """

    def __init__(self, source: Source, size: tuple[int, int], scale: int, digest: str) -> None:
        self.source, self.size, self.scale, self.digest = source, size, scale, digest
        self.name, self.weight = source.path.name, source.weight
        self.given = source.lr is not None

    def crop(self, y: int, x: int, height: int, width: int) -> tuple[Pixels8, Pixels8]:
        """LR and HR of one window, given in low-resolution pixels.

        Raises:
            TrainingError: the file has changed or gone since it was checked.
        """
        try:
            hr = decode(self.source.path.read_bytes(), self.source.shrink)
            given = decode(self.source.lr.read_bytes()) if self.source.lr else None
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{self.source.path} changed during the run and is not readable now: {error}"
            ) from error
        scale, (rows, columns) = self.scale, self.size
        inner = hr[y * scale : (y + height) * scale, x * scale : (x + width) * scale]
        if given is not None:
            return given[y : y + height, x : x + width], inner
        top, left = max(y - SHRINK_REACH, 0), max(x - SHRINK_REACH, 0)
        bottom, right = min(y + height + SHRINK_REACH, rows), min(x + width + SHRINK_REACH, columns)
        lr = shrink(hr[top * scale : bottom * scale, left * scale : right * scale], scale)
        return lr[y - top : y - top + height, x - left : x - left + width], inner


@dataclass(frozen=True)
class Store:
    """Reads pictures and keeps them.

    Attributes:
        scale: of the network.
        storage: where decoded pictures are kept.
        cache: folder of arrays on disk.
        cache_lr: keep shrunk pictures there even if the originals are in memory.
        least: smallest allowed side of a low-resolution picture.
    """

    scale: int
    storage: Storage
    cache: Path
    cache_lr: bool = False
    least: int = 1

    def load(self, source: Source) -> Picture:
        """Read, check and keep one picture.

        Raises:
            _Rejected: it cannot be used.
            OutputError: the cache cannot be written.
        """
        try:
            content = source.path.read_bytes()
            partner = source.lr.read_bytes() if source.lr else None
        except OSError as error:
            raise _Rejected("unreadable", error.strerror or str(error)) from error
        digest = _digest(content, partner, source.shrink)
        stem = self.cache / "pictures" / f"{digest}_x{self.scale}"
        hr_path, lr_path = stem.with_suffix(".hr.npy"), stem.with_suffix(".lr.npy")
        if self.storage == "mapped":
            hr, lr = read_array(hr_path), read_array(lr_path)
            if hr is not None and lr is not None:
                self._check_size(hr)
                return self._pair(source, hr, lr, digest)
        hr, lr = self._decode(content, partner, source.shrink)
        self._check_size(hr)
        if self.storage == "files":
            size = (hr.shape[0] // self.scale, hr.shape[1] // self.scale)
            return FilePicture(source, size, self.scale, digest)
        if lr is None:
            lr = self._shrunk(hr, lr_path)
        if self.storage == "mapped":
            return self._pair(source, save_array(hr_path, hr), save_array(lr_path, lr), digest)
        return self._pair(source, np.ascontiguousarray(hr), lr, digest)

    def _shrunk(self, hr: Pixels8, path: Path) -> Pixels8:
        """Low resolution, from the cache where it is kept there."""
        kept = read_array(path) if self.cache_lr else None
        if kept is not None and kept.shape[0] * self.scale == hr.shape[0]:
            return np.array(kept)
        lr = shrink(hr, self.scale)
        if self.cache_lr:
            save_array(path, lr)
        return lr

    def _pair(self, source: Source, hr: Pixels8, lr: Pixels8, digest: str) -> Pair:
        given = source.lr is not None
        return Pair(source.path.name, hr, lr, source.weight, given, digest)

    def _decode(
        self, content: bytes, partner: bytes | None, shrink: int
    ) -> tuple[Pixels8, Pixels8 | None]:
        """HR cropped to a multiple of the scale, and LR if it is given."""
        try:
            hr = decode(content, shrink)
            lr = decode(partner) if partner is not None else None
        except ValueError as error:
            raise _Rejected("unreadable", str(error)) from error
        cropped = crop_to_multiple(hr, self.scale)
        if lr is None:
            return cropped, None
        height, width = (side // self.scale for side in hr.shape[:2])
        # Where HR is not a multiple, some tools round the sides of LR down and others up.
        ceil = tuple(-(-side // self.scale) for side in hr.shape[:2])
        if lr.shape[:2] not in ((height, width), ceil):
            sizes = [f"{x.shape[1]}x{x.shape[0]}" for x in (hr, lr)]
            raise _Rejected("size mismatch", f"{sizes[0]} is not {self.scale} times {sizes[1]}")
        return cropped, np.ascontiguousarray(lr[:height, :width])

    def _check_size(self, hr: Pixels8) -> None:
        least = self.least * self.scale
        if min(hr.shape[:2]) < least:
            raise _Rejected(
                "too small", f"{hr.shape[1]}x{hr.shape[0]} is smaller than a crop of {least}"
            )


def _digest(content: bytes, partner: bytes | None, shrink: int) -> str:
    digest = hashlib.blake2b(content, digest_size=16)
    if partner is not None:
        digest.update(hashlib.blake2b(partner).digest())
    return digest.hexdigest() + (f"_{shrink}" if shrink > 1 else "")


def read_array(path: Path) -> Pixels8 | None:
    """A memory-mapped uint8 picture ``(H, W, 3)``; None if the file is missing or damaged."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.dtype == np.uint8 and array.ndim == 3 else None


def save_array(path: Path, array: Pixels8) -> Pixels8:
    """Write a picture, whole or not at all, and return it memory-mapped.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_path(path) as part:
        np.save(part, array)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def choose_storage(sources: Sequence[Source], scale: int, limit_gb: float) -> Storage:
    """Memory if all decoded pictures fit into ``limit_gb``, else memory-mapped files."""

    def pixels(source: Source) -> int:
        try:
            with Image.open(source.path) as image:
                return image.width * image.height // source.shrink**2
        except Exception:  # reported when it is decoded
            return 0

    with ThreadPoolExecutor() as pool:
        total = sum(pool.map(pixels, sources))
    return "memory" if 3 * total * (1 + 1 / scale**2) <= limit_gb * 1e9 else "mapped"


def load_pictures(
    sources: Sequence[Source], store: Store, threads: int
) -> tuple[list[Picture], list[Problem]]:
    """Read, check and keep pictures in parallel; of identical files only the first is kept.

    Returns:
        The usable ones in the order of ``sources``, and why the others are left out.

    Raises:
        OutputError: the cache cannot be written.
    """

    def load(source: Source) -> Picture | Problem:
        try:
            return store.load(source)
        except _Rejected as reason:
            return Problem(reason.kind, source.path, str(reason))

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(load, sources))
    pictures: list[Picture] = []
    problems: list[Problem] = []
    first: dict[str, Path] = {}
    for source, result in zip(sources, results, strict=True):
        if isinstance(result, Problem):
            problems.append(result)
        elif result.digest in first:
            detail = f"the same as {first[result.digest]}"
            problems.append(Problem("duplicate", source.path, detail))
        else:
            first[result.digest] = source.path
            pictures.append(result)
    return pictures, problems
