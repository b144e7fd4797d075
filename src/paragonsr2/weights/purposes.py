"""Models by what people want, ``--for WORD``, and by the file that is enlarged, ``auto``."""

from __future__ import annotations

from dataclasses import dataclass

from paragonsr2.errors import OptionError, WeightsError
from paragonsr2.weights.catalogue import entries


@dataclass(frozen=True)
class Purpose:
    """What a word stands for.

    Attributes:
        about: one line for people who choose.
        models: what to take, as for ``--model``; the first that is bundled at the scale.
    """

    about: str
    models: tuple[str, ...]


PURPOSES = {
    "faithful": Purpose(
        "nothing invented: clean photographs and scans", ("photo", "stream", "realtime")
    ),
    "restore": Purpose(
        "old JPEGs, noisy and blurred pictures, cleaned", ("photo:real", "stream:real")
    ),
    "video": Purpose(
        "video and JPEGs as cameras and websites compress them",
        ("stream:compressed", "realtime:compressed", "realtime"),
    ),
    "crisp": Purpose(
        "sharper than faithful, some detail invented",
        ("photo:perceptual", "stream:perceptual", "realtime:perceptual"),
    ),
    "drawing": Purpose(
        "drawings, anime and line work", ("stream:art", "realtime:art", "stream:compressed")
    ),
}


@dataclass(frozen=True)
class ForJpegs:
    """A model for JPEGs of a low quality.

    Attributes:
        model: as for ``--model``.
        below: the quality from which on a faithful model is better.
    """

    model: str
    below: int


#: The name of the choice by the file, and what it takes where nothing else is better.
AUTO, USUAL = "auto", "realtime"

#: By scale, what the choice by the file takes for JPEGs: as quick as the usual model. From
#: ``results/quality/jpeg.json``, ``jpeg_x3.json`` and ``jpeg_x4.json``, as is the next.
QUICK_FOR_JPEGS = {
    2: ForJpegs("realtime:compressed", 90),
    3: ForJpegs("realtime:compressed", 89),
    4: ForJpegs("realtime:compressed", 88),
}

#: By scale, the model that makes the best of JPEGs.
BEST_FOR_JPEGS = {
    2: ForJpegs("stream:compressed", 96),
    3: ForJpegs("realtime:compressed", 89),
    4: ForJpegs("stream:compressed", 92),
}


@dataclass(frozen=True)
class ForClips:
    """A model for clips that were stored coarsely.

    Attributes:
        model: as for ``--model``.
        above: the mean quantiser up to which a faithful model is better.
    """

    model: str
    above: float


#: By scale, what the choice by the file takes for H.264 clips: as quick as the usual model. From
#: ``results/quality/clips.json``, ``clips_x3.json`` and ``clips_x4.json``.
QUICK_FOR_CLIPS = {
    2: ForClips("realtime:compressed", 26.0),
    3: ForClips("realtime:compressed", 28.0),
    4: ForClips("realtime:compressed", 29.0),
}


def suited(scale: int, *, quality: int | None = None, quantiser: float | None = None) -> str:
    """The bundled model that ``auto`` takes for a file.

    Args:
        scale: of the enlargement.
        quality: of a JPEG, see :func:`paragonsr2.images.jpeg.jpeg_quality`; None for all else.
        quantiser: of a clip, see :func:`paragonsr2.clips.quantiser.quantiser`; None if unknown,
            and for all else.
    """
    picture, clip = QUICK_FOR_JPEGS.get(scale), QUICK_FOR_CLIPS.get(scale)
    if picture is not None and quality is not None and quality < picture.below:
        return picture.model
    if clip is not None and quantiser is not None and quantiser > clip.above:
        return clip.model
    return USUAL


def model_for(word: str, scale: int) -> str:
    """The bundled model for a purpose.

    Args:
        word: a key of :data:`PURPOSES`.
        scale: 2, 3, 4 or 8.

    Returns:
        Its name, as for ``--model``.

    Raises:
        OptionError: there is no such word.
        WeightsError: no model for it is bundled at this scale.
    """
    if word not in PURPOSES:
        raise OptionError(f"--for {word}: use one of {', '.join(PURPOSES)}")
    for model in PURPOSES[word].models:
        if any((entry.model, entry.scale) == (model, scale) for entry in entries()):
            return model
    known, ways = available(), list[str]()
    if word in known:
        ways.append(f"--scale {' or '.join(map(str, known[word]))}")
    if words := [name for name, scales in known.items() if scale in scales]:
        ways.append(f"at x{scale} --for {' or '.join(words)}")
    instead = f"; take {', or '.join(ways)}" if ways else ""
    raise WeightsError(f"no model for '{word}' is bundled at x{scale}{instead}")


def available() -> dict[str, list[int]]:
    """The words that have a bundled model, with the scales they have it at."""
    found = {
        word: sorted({entry.scale for entry in entries() if entry.model in purpose.models})
        for word, purpose in PURPOSES.items()
    }
    return {word: scales for word, scales in found.items() if scales}
