"""Model cards say what the catalogue says, and nothing that it does not."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import replace

import pytest
import yaml

from benchmark import cards
from benchmark.cards import HOLE, model_card, openmodeldb
from conftest import ROOT
from paragonsr2.variants import VARIANTS
from paragonsr2.weights.catalogue import Entry, entries

ENTRY = Entry(
    variant="photo",
    scale=3,
    kind="fidelity",
    licence="MIT",
    parameters=1234567,
    kmacs_per_pixel=987.6,
    files={
        "onnx": {"name": "made_up.onnx", "sha256": "a" * 64},
        "safetensors": {"name": "made_up.safetensors", "sha256": "b" * 64},
    },
    training={
        "steps": 4321,
        "batch": 12,
        "data": ["gardens", "harbours"],
        "data_licence": "CC0-1.0 | public domain",
        "loss": {"kind": "l1"},
    },
    quality={"Set5": {"psnr_y": 31.236, "ssim_y": 0.91237}, "Nine": {"psnr_y": 29.0}},
)
BARE = replace(ENTRY, training={}, quality={})


def front_matter(card):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, flags=re.DOTALL)[1])


def section(card, head):
    return re.search(rf"^#+ {head}$\n(.*?)(?=^#|\Z)", card, flags=re.DOTALL | re.MULTILINE)[1]


def test_the_front_matter_is_what_the_hub_reads():
    assert front_matter(model_card(ENTRY)) == {
        "license": "mit",
        "library_name": "paragonsr2",
        "pipeline_tag": "image-to-image",
        "tags": ["super-resolution", "3x", "photo", "fidelity", "onnx", "safetensors"],
        "metrics": ["psnr", "ssim"],
    }


def test_a_licence_that_the_hub_does_not_know_keeps_its_name():
    odd = 'house: "rules" #1'
    about = front_matter(model_card(replace(ENTRY, licence=odd)))
    assert (about["license"], about["license_name"]) == ("other", odd)


def test_numbers_come_from_the_entry():
    card = model_card(ENTRY)
    for text in ("1,234,567", "987.6", "4321", "a" * 64, "b" * 64):
        assert text in card
    assert "gardens, harbours" in section(card, "Training data")
    assert "CC0-1.0 | public domain" in section(card, "Training data")
    quality = section(card, "Measured quality")
    assert "| Set5 | 31.23 | 0.9123 |" in quality
    assert f"| Nine | 29.00 | {HOLE} |" in quality


def test_the_commands_name_the_files_of_the_entry():
    usage = section(model_card(ENTRY), "How to run it")
    assert "--model made_up.onnx --scale 3" in usage
    assert 'Upscaler("made_up.onnx", scale=3)' in usage
    assert 'load_from_file("made_up.safetensors")' in usage
    one = replace(ENTRY, files={"onnx": ENTRY.files["onnx"]})
    assert "spandrel" not in model_card(one)


def test_what_is_not_known_is_a_hole():
    card = model_card(BARE)
    assert "metrics" not in front_matter(card)
    for head in ("Measured quality", "Training data", "Training"):
        assert HOLE in section(card, head).lower()
    # No figure of quality, however it came about.
    assert not re.search(r"\d", section(card, "Measured quality"))
    about = openmodeldb(BARE)
    for key in ("trainingIterations", "trainingBatchSize", "dataset", "author", "date"):
        assert about[key] is None
    assert about["images"] == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["fidelity", "perceptual", "compressed", "another"])
def test_every_kind_of_entry_has_its_descriptions(variant, kind):
    entry = replace(ENTRY, variant=variant, kind=kind)
    card = model_card(entry)
    assert ("tiles" in section(card, "Limits")) == VARIANTS[variant].global_pool
    assert list(tables(card))
    assert ("MATLAB" in card) == (kind in ("fidelity", "perceptual"))
    about = openmodeldb(entry)
    assert json.loads(json.dumps(about)) == about
    assert about["description"] == about["description"].strip()


def tables(card):
    """The rows of each table, whose cells must be as many as its head's."""
    for block in re.findall(r"(?:^\|.*\|$\n?)+", card, flags=re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        assert len({len(row) for row in rows}) == 1
        yield from rows


def test_the_database_record_follows_the_entry(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    (tmp_path / "made_up.onnx").write_bytes(bytes(77))
    about = openmodeldb(ENTRY)
    assert (about["scale"], about["inputChannels"], about["outputChannels"]) == (3, 3, 3)
    assert about["license"] == "MIT"
    assert (about["trainingIterations"], about["trainingBatchSize"]) == (4321, 12)
    assert about["size"] == ["64nf", "16nb"]
    assert about["dataset"] == "gardens, harbours (licences: CC0-1.0 | public domain)"
    assert about["resources"] == [
        {"platform": "onnx", "type": "onnx", "size": 77, "sha256": "a" * 64, "urls": []},
        {"platform": "pytorch", "type": "safetensors", "size": None, "sha256": "b" * 64,
         "urls": []},
    ]  # fmt: skip


def test_the_published_descriptions_are_current():
    written = {path.name: path.read_text() for path in (ROOT / "docs" / "models").iterdir()}
    tool = runpy.run_path(str(ROOT / "tools" / "cards.py"))
    assert written == {
        name: text for entry in entries() for name, text in tool["texts"](entry).items()
    }
