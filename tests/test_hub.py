"""Models in folders and repositories."""

from __future__ import annotations

import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import paragonsr2
from conftest import photo_like
from paragonsr2.errors import MissingExtraError, WeightsError
from paragonsr2.weights.catalogue import FOLDER, find

NAME = "paragonsr2_realtime_x2_fidelity_fp32.onnx"


@pytest.fixture
def folder(tmp_path):
    shutil.copy(FOLDER / NAME, tmp_path)
    return tmp_path


def test_a_folder_a_repository_and_a_bundled_name_give_the_same_picture(folder, monkeypatch):
    asked = []

    def snapshot_download(name, *, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(folder)

    hub = SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    x = photo_like(24, 17)
    expected = paragonsr2.Upscaler("realtime")(x)
    for name in (folder, str(folder), folder / NAME, "realtime"):
        np.testing.assert_array_equal(paragonsr2.Upscaler.from_pretrained(name)(x), expected)
    assert not asked
    remote = paragonsr2.Upscaler.from_pretrained("someone/realtime", revision="v1")
    np.testing.assert_array_equal(remote(x), expected)
    ((name, revision, patterns),) = asked
    assert (name, revision) == ("someone/realtime", "v1")
    assert not any("pth" in pattern or pattern == "*" for pattern in patterns)


def test_float32_onnx_goes_before_other_kinds_and_several_are_named(folder):
    shutil.copy(find("realtime", 2).file("safetensors").path, folder / "other.safetensors")
    assert paragonsr2.Upscaler.from_pretrained(folder).scale == 2
    shutil.copy(FOLDER / NAME, folder / "twin_fp32.onnx")
    with pytest.raises(WeightsError, match=r"several models.*twin_fp32\.onnx"):
        paragonsr2.Upscaler.from_pretrained(folder)
    assert paragonsr2.Upscaler.from_pretrained(folder, filename="twin_fp32.onnx").scale == 2
    for wrong in ("none.onnx", "../elsewhere.onnx"):
        with pytest.raises(WeightsError, match="has no"):
            paragonsr2.Upscaler.from_pretrained(folder, filename=wrong)


def test_an_empty_folder_and_a_hub_that_fails_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="has no model"):
        paragonsr2.Upscaler.from_pretrained(tmp_path)

    def snapshot_download(*_, **__):
        raise OSError("no\nnetwork")

    hub = SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(WeightsError, match="someone/x cannot be fetched from the hub: no network"):
        paragonsr2.Upscaler.from_pretrained("someone/x")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"paragonsr2\[hub\]"):
        paragonsr2.Upscaler.from_pretrained("someone/x")
