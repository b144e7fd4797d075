"""What the driver of a job and its workers say to each other; all of it can be pickled."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paragonsr2.clips.clip import Clip
from paragonsr2.clips.damage import Damage
from paragonsr2.clips.encode import Encoding
from paragonsr2.upscale.upscaler import EngineFacts, UpscalerOptions
from paragonsr2.upscale.video import Temporal


@dataclass(frozen=True)
class Recipe:
    """How a worker opens its engine.

    Attributes:
        model: name or path of the model.
        scale: wanted enlargement; None for the model's own.
        options: of the upscaler.
        temporal: whether frames of clips are steadied.
        cpus: cores that a worker may use.
    """

    model: str
    scale: int | None
    options: UpscalerOptions
    temporal: Temporal = "auto"
    cpus: float = 1


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker is.

    Attributes:
        version: of the package.
        engine: its upscaler.
        temporal: see :func:`paragonsr2.upscale.video.steadier_digest`.
        unsteady: why frames are not steadied although they should be.
        node: Ray's identifier of the machine.
        host: its name.
    """

    version: str
    engine: EngineFacts
    temporal: str
    unsteady: tuple[str, ...] = ()
    node: str = ""
    host: str = ""


@dataclass(frozen=True)
class SegmentOrder:
    """A segment to make.

    Attributes:
        key: tells the clip and its settings from all others.
        clip: the source, with an absolute path.
        encoding: settings of the encoder.
        tile: to compute with; None for the whole frame.
        size: frames of a segment.
        number: which segment of the clip, from 0.
        result: where to write it; None to send it back.
        pieces: references to the bytes of the source, in order; empty if its path is shared.
    """

    key: str
    clip: Clip
    encoding: Encoding
    tile: int | None
    size: int
    number: int
    result: Path | None
    pieces: tuple[Any, ...] = ()


@dataclass(frozen=True)
class MadeSegment:
    """A segment that a worker has made.

    Attributes:
        frames: number of its frames: less than the size if the clip ends with it, 0 if it has
            ended before.
        repeated: frames that equalled the previous one.
        content: the segment's file; None if it was written, or has no frames.
        damage: what is wrong with the clip, from its beginning to the end of this segment.
    """

    frames: int
    repeated: int
    content: bytes | None = None
    damage: Damage = field(default_factory=Damage)
