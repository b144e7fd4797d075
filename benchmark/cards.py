"""Descriptions of bundled models for the Hugging Face Hub and OpenModelDB.

Every fact comes from the catalogue or from the table of variants. Anything that they do not
contain is marked as not recorded, never guessed; whoever publishes the model fills it in.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from paragonsr2.variants import VARIANTS, Variant
from paragonsr2.weights.catalogue import FOLDER, Entry

#: Written where the catalogue has no entry.
HOLE = "not recorded"

# Licences that the Hub knows by their lower-case SPDX name; others need ``license_name``.
_KNOWN_LICENCES = ("apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0",
                   "cc0-1.0", "gpl-3.0", "lgpl-3.0", "mit", "unlicense")  # fmt: skip
# Name on the Hub, name in the table, decimals.
_METRICS = {"psnr_y": ("psnr", "PSNR-Y, dB", 2), "ssim_y": ("ssim", "SSIM-Y", 4)}
# Platform and type of a file in OpenModelDB's terms.
_RESOURCES = {
    "onnx": ("onnx", "onnx"),
    "onnx_fp16": ("onnx", "onnx"),
    "onnx_int8": ("onnx", "onnx"),
    "safetensors": ("pytorch", "safetensors"),
}


@dataclass(frozen=True)
class _Kind:
    """What a kind of training means for the use of a model."""

    use: str
    limit: str
    tags: tuple[str, ...]
    #: How the low-resolution images of the measurement were made.
    measured_on: str


_BICUBIC = "On images downscaled by MATLAB's antialiased bicubic and rounded to 8 bits"
_UNKNOWN_INPUT = f"How the images were downscaled is {HOLE}"


_KINDS = {
    "fidelity": _Kind(
        use="Faithful upscaling of clean images: the result stays as close as possible to a "
        "photograph of the same scene at the higher resolution.",
        limit="It does not remove noise, blur or compression artefacts; it upscales them too.",
        tags=("general-upscaler",),
        measured_on=_BICUBIC,
    ),
    "perceptual": _Kind(
        use="Upscaling that looks sharp and natural.",
        limit="It adds plausible texture, which may differ from the real one.",
        tags=("general-upscaler",),
        measured_on=_BICUBIC,
    ),
    "compressed": _Kind(
        use="Upscaling of compressed images and video; it removes block edges and ringing.",
        limit="On clean images it removes fine detail.",
        tags=("general-upscaler", "compression-removal"),
        measured_on=_UNKNOWN_INPUT,
    ),
    "real": _Kind(
        use="Restoring pictures as people have them: blur, noise, JPEG blocks and ringing are "
        "removed while they are enlarged.",
        limit="On clean images it removes fine detail, and it may take texture for noise.",
        tags=("general-upscaler", "restoration", "compression-removal", "denoise"),
        measured_on=_BICUBIC,
    ),
}


def model_card(entry: Entry) -> str:
    """Write the model card of a bundled model.

    Args:
        entry: a row of the catalogue.

    Returns:
        Markdown with YAML front matter, for the ``README.md`` of a repository on the Hub.
    Source: Mitchell et al., "Model Cards for Model Reporting", 2019; the Hub's documentation.
    """
    row = VARIANTS[entry.variant]
    kind = _KINDS.get(entry.kind)
    limits = [
        kind.limit if kind else f"The limits of this kind of training ({entry.kind}) are {HOLE}.",
        f"It upscales by {entry.scale} only.",
        "Detail that the input does not contain cannot be recovered. The result is not evidence: "
        "do not use it to identify faces, number plates or small print.",
    ]
    if row.global_pool:
        limits.append("It averages over the whole image, so tiles give slightly different results.")
    sections = {
        f"{_title(entry)} ×{entry.scale}": _summary(entry, row),
        "Intended use": f"{kind.use if kind else entry.kind} Made for {row.purpose}.",
        "How to run it": _usage(entry),
        "Training data": _data(entry),
        "Training": _table(
            ["setting", "value"],
            [[key, _plain(value)] for key, value in entry.training.items()],
        ),
        "Measured quality": _quality(entry),
        "Limits": "\n".join(f"- {limit}" for limit in limits),
        "Files": _table(
            ["file", "sha256"],
            [[f"`{about['name']}`", f"`{about['sha256']}`"] for about in entry.files.values()],
        ),
    }
    body = [
        f"{'##' if index else '#'} {head}\n\n{text}"
        for index, (head, text) in enumerate(sections.items())
    ]
    return "\n\n".join([_front_matter(entry), *body]) + "\n"


def openmodeldb(entry: Entry) -> dict[str, object]:
    """Write the record of a bundled model for OpenModelDB.

    Args:
        entry: a row of the catalogue.

    Returns:
        A dictionary ready for JSON. ``author``, ``date``, ``images`` and the ``urls`` of the
        files are known only after publication and are None or empty, like everything else that
        the catalogue does not contain.
    Source: ``src/lib/schema.ts`` of OpenModelDB.
    """
    row = VARIANTS[entry.variant]
    kind = _KINDS.get(entry.kind)
    use = f"{kind.use}\n\n{kind.limit}" if kind else f"Trained for: {entry.kind}."
    return {
        "name": _title(entry),
        "author": None,
        "license": entry.licence,
        "tags": list(kind.tags) if kind else [],
        "description": f"{use}\n\nMade for {row.purpose}.",
        "date": None,
        "architecture": "paragonsr2",
        "size": [f"{row.channels}nf", f"{row.groups * row.blocks}nb"],
        "scale": entry.scale,
        "inputChannels": 3,
        "outputChannels": 3,
        "resources": [
            {
                "platform": _RESOURCES[file_kind][0],
                "type": _RESOURCES[file_kind][1],
                "size": _bytes(about["name"]),
                "sha256": about["sha256"],
                "urls": [],
            }
            for file_kind, about in entry.files.items()
        ],
        "trainingIterations": entry.training.get("steps"),
        "trainingBatchSize": entry.training.get("batch"),
        "dataset": _dataset(entry),
        "images": [],
    }


def _title(entry: Entry) -> str:
    return f"ParagonSR2 {entry.variant.capitalize()} {entry.kind}"


def _front_matter(entry: Entry) -> str:
    short = entry.licence.lower()
    fields: dict[str, object] = {"license": short if short in _KNOWN_LICENCES else "other"}
    if short not in _KNOWN_LICENCES:
        fields["license_name"] = entry.licence
    fields["library_name"] = "paragonsr2"
    fields["pipeline_tag"] = "image-to-image"
    fields["tags"] = [
        "super-resolution",
        f"{entry.scale}x",
        entry.variant,
        entry.kind,
        *dict.fromkeys(_RESOURCES[file_kind][1] for file_kind in entry.files),
    ]
    measured = _measured(entry)
    if measured:
        fields["metrics"] = [_METRICS[key][0] for key in measured]
    # JSON values are valid YAML, and no text in them can break the line.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _summary(entry: Entry, row: Variant) -> str:
    return (
        f"Upscales RGB images of any size by {entry.scale}. A fixed Magic Kernel carries the "
        "structure; a network working in low resolution adds the detail.\n\n"
        + _table(
            ["licence", "parameters, deployed", "thousand multiply-adds per input pixel", "body"],
            [
                [
                    entry.licence,
                    f"{entry.parameters:,}",
                    f"{entry.kmacs_per_pixel:,.1f}",
                    f"{row.groups} × {row.blocks} {row.block} blocks, {row.channels} channels",
                ]
            ],
        )
    )


def _usage(entry: Entry) -> str:
    parts: list[str] = []
    if "onnx" in entry.files:
        name = entry.files["onnx"]["name"]
        parts.append(
            "With `pip install paragonsr2`, on any CPU:\n\n"
            f"```\nparagonsr2 upscale photo.png --model {name} --scale {entry.scale}\n```\n\n"
            "```python\nimport paragonsr2\n\n"
            f'upscaler = paragonsr2.Upscaler("{name}", scale={entry.scale})\n'
            "hr = upscaler(lr)  # (H, W, 3) uint8, uint16 or float32 in and out\n```"
        )
    if "safetensors" in entry.files:
        parts.append(
            "In tools that load models with spandrel:\n\n"
            "```python\nimport spandrel\nfrom paragonsr2.spandrel import install\n\n"
            "install()\nmodel = spandrel.ModelLoader().load_from_file("
            f'"{entry.files["safetensors"]["name"]}")\n```'
        )
    return "\n\n".join(parts) or f"Files: {HOLE}."


def _data(entry: Entry) -> str:
    names = entry.training.get("data")
    licence = entry.training.get("data_licence")
    return (
        f"- Images: {', '.join(names) if names else HOLE}\n"
        f"- Licences of the images: {licence or HOLE}"
    )


def _dataset(entry: Entry) -> str | None:
    names = entry.training.get("data")
    if not names:
        return None
    return f"{', '.join(names)} (licences: {entry.training.get('data_licence') or HOLE})"


def _measured(entry: Entry) -> list[str]:
    """The metrics that at least one set has."""
    return [key for key in _METRICS if any(key in row for row in entry.quality.values())]


def _quality(entry: Entry) -> str:
    metrics = _measured(entry)
    if not metrics:
        return f"Quality: {HOLE}."
    rows = [
        [
            name,
            *(_cut(row[key], _METRICS[key][2]) if key in row else HOLE for key in metrics),
        ]
        for name, row in entry.quality.items()
    ]
    kind = _KINDS.get(entry.kind)
    return (
        f"{kind.measured_on if kind else _UNKNOWN_INPUT}; luma of ITU-R BT.601, "
        f"{entry.scale} pixels shaved at each border, mean over each set. These figures do not "
        "say how an image looks.\n\n"
        + _table(["set", *(_METRICS[key][1] for key in metrics)], rows)
    )


def _cut(value: float, decimals: int) -> str:
    """Format ``value`` with ``decimals``, rounded down."""
    # The small addend keeps values that are stored a little below their decimal form.
    return f"{math.floor(value * 10**decimals + 1e-6) / 10**decimals:.{decimals}f}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table; says "not recorded" if there are no rows."""
    if not rows:
        return f"{HOLE.capitalize()}."
    lines = [head, ["---"] * len(head), *rows]
    cells = ([" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _bytes(name: str) -> int | None:
    """Size of a bundled file; None if it is not there."""
    path = FOLDER / name
    return path.stat().st_size if path.is_file() else None
