"""The bundled model that suits a file: what ``--model auto`` takes."""

from __future__ import annotations

from pathlib import Path

from paragonsr2.clips.clip import MAX_FRAME_PIXELS
from paragonsr2.clips.container import is_video
from paragonsr2.clips.quantiser import quantiser
from paragonsr2.images.jpeg import jpeg_quality
from paragonsr2.weights.purposes import suited


def suited_to(path: Path, scale: int, *, max_pixels: int = MAX_FRAME_PIXELS) -> str:
    """The name of a model for a picture or a clip, by how strongly it was compressed.

    Args:
        path: of any file, even one that cannot be read.
        scale: of the enlargement.
        max_pixels: largest frame of a clip that is looked at.
    """
    if is_video(path):
        return suited(scale, quantiser=quantiser(path, max_pixels=max_pixels))
    return suited(scale, quality=jpeg_quality(path))
