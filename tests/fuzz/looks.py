"""What an output looks like, whether it is another picture, and who can know that it is."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image

from paragonsr2.clips.clip import probe
from paragonsr2.clips.container import is_video
from paragonsr2.clips.frames import read_frames
from paragonsr2.images.reading import ImageReader

#: Pages or frames, each ``(H, W, C)``, from 0 to 1.
Look = list[np.ndarray[Any, np.dtype[np.float32]]]

# More than so many samples off by more than so much is another picture.
_SHARE, _OFF = 0.05, 0.1

_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}


def look(path: Path) -> Look:
    """Decode an output."""
    if is_video(path):
        pages: list[Any] = []
        for frame in read_frames(probe(path)):
            pages.append(pages[-1] if frame.pixels is None else _floats(frame.pixels))
        return pages
    with ImageReader(path) as reader:
        height = reader.header.height
        rows = np.concatenate([_floats(strip) for strip in reader.strips()])
    return [rows[top : top + height] for top in range(0, len(rows), height)]


def _floats(pixels: Any) -> Any:
    if pixels.dtype == np.float32:
        return pixels
    return pixels.astype(np.float32) / np.iinfo(pixels.dtype).max


def differs(whole: Look | None, spoiled: Look) -> bool:
    """Whether an output is of the right size and another picture, on any page or frame.

    A clip that has lost frames is of the right size.
    """
    if not whole or not spoiled or whole[0].shape != spoiled[0].shape:
        return False
    if len(whole) != len(spoiled):
        return True
    return any(
        np.mean(~(np.abs(a - b) <= _OFF)) > _SHARE for a, b in zip(whole, spoiled, strict=True)
    )


def is_known_to_others(path: Path, whole: Path) -> str:
    """``known to others`` if another decoder, told to be strict, complains; else ``unknowable``.

    Args:
        path: the spoiled file.
        whole: the unspoiled file; a decoder that complains of that is no judge.
    """
    complains = _ffmpeg_complains if is_video(path) else _pillow_complains
    return "known to others" if complains(path) and not complains(whole) else "unknowable"


def _pillow_complains(path: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                for page in range(getattr(image, "n_frames", 1)):
                    image.seek(page)
                    image.load()
        except Exception:
            return True
    return False


def _ffmpeg_complains(path: Path) -> bool:
    try:
        with av.open(str(path), options=_STRICT, metadata_errors="surrogateescape") as clip:
            stream = clip.streams.video[0]
            stream.codec_context.options = _STRICT
            for frame in clip.decode(stream):
                if frame.is_corrupt:
                    return True
    except (FFmpegError, OSError, IndexError, ValueError):
        return True
    return False
