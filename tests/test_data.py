"""The training set: bad files are left out and named; however it is kept, crops are the same."""

from __future__ import annotations

import itertools
import json
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import photo_like
from paragonsr2.errors import ConfigError, TrainingError
from paragonsr2.measure.quality import shrink
from paragonsr2.training.config_file import load_config
from paragonsr2.training.data import CropSampler, Pair
from paragonsr2.training.dataset import prepare
from paragonsr2.training.drawn import draw_pair
from paragonsr2.training.prefetch import prefetch
from paragonsr2.training.preview import PREVIEW_FILE, contact_sheet, write_preview

CONFIG = """
[network]
variant = "realtime"
scale = 2
[data]
train = ["{folder}/train"]
val = "{folder}/val"
patch = 16
batch = 4
[schedule]
steps = 2
[run]
output = "{folder}/run"
threads = 2
"""


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        save(tmp_path / "train" / f"{i}.png", photo_like(61 + 6 * i, 80, seed=i))
    save(tmp_path / "val" / "v.png", photo_like(64, 64, seed=9))
    (tmp_path / "config.toml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path


def prepared(folder, *overrides):
    """The sampler, and what was logged from the training set on."""
    config, lines = load_config(folder / "config.toml", overrides), []
    sampler, _ = prepare(
        config.data, config.degradation, config.run, config.network.scale, log=lines.append
    )
    return sampler, [line for line in lines if not line.startswith("reading ")]


def test_bad_files_are_left_out_counted_and_reported(folder):
    train = folder / "train"
    (train / "broken.png").write_bytes(b"no image")
    whole = (train / "1.png").read_bytes()
    (train / "cut.png").write_bytes(whole[: len(whole) // 2])
    (train / "twin.png").write_bytes(whole)
    save(train / "small.png", photo_like(20, 90))
    Image.fromarray(np.full((64, 64), 300, np.uint16)).save(train / "deep.png")
    sampler, lines = prepared(folder)
    assert sorted(p.name for p in sampler.pictures) == ["0.png", "1.png", "2.png"]
    assert lines[0].startswith("training on 3 of 8 images")
    assert "3 unreadable (broken.png, cut.png, deep.png)" in lines[0]
    assert "1 duplicate (twin.png)" in lines[0]
    assert "1 too small (small.png)" in lines[0]
    report = json.loads((folder / "run" / "data.json").read_text())
    assert (report["found"], report["used"], len(report["problems"])) == (8, 3, 5)
    text = (folder / "run" / "data.md").read_text()
    assert "small.png | 90x20 is smaller than a crop of 32" in text
    assert "convert it to 8 bit" in text


def test_nothing_left_or_an_empty_folder_is_one_clear_line(folder):
    (folder / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"no images in .*empty; check the \[data\]"):
        prepared(folder, f'data.train=["{folder}/empty"]')
    with pytest.raises(TrainingError, match=r"3 too small .*smaller than a crop of 200"):
        prepared(folder, "data.patch=100")
    (folder / "val" / "v.png").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"v\.png is unreadable"):
        prepared(folder)


@pytest.mark.parametrize("storage", ["mapped", "files"])
@pytest.mark.parametrize("scale", [2, 3])
def test_crops_are_the_same_however_pictures_are_kept(folder, storage, scale):
    overrides = (f"network.scale={scale}", "data.patch=12")
    memory, _ = prepared(folder, "data.storage=memory", *overrides)
    for attempt in range(2):
        other, _ = prepared(folder, f"data.storage={storage}", *overrides)
        for step in range(4):
            pairs = zip(memory.batch(step, range(4)), other.batch(step, range(4)), strict=True)
            for one, same in pairs:
                np.testing.assert_array_equal(one, same)
        if storage == "mapped":
            assert isinstance(other.pictures[0].hr, np.memmap), attempt


def test_a_set_above_the_limit_is_memory_mapped_and_damage_is_mended(folder):
    overrides = ("data.memory_gb=1e-5", f"data.cache={folder}/kept")
    before = prepared(folder, *overrides)[0].batch(0, range(4))
    assert json.loads((folder / "run" / "data.json").read_text())["storage"] == "mapped"
    path = next((folder / "kept").rglob("*.hr.npy"))
    path.write_bytes(path.read_bytes()[:300])
    after = prepared(folder, *overrides)[0].batch(0, range(4))
    for one, same in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, same)


def test_shrunk_pictures_are_taken_from_the_cache(folder):
    first, _ = prepared(folder, "data.cache_lr=true")
    path = next((folder / "run").rglob("*.lr.npy"))
    marked = np.full_like(np.load(path), 7)
    np.save(path, marked)
    again, _ = prepared(folder, "data.cache_lr=true")
    assert sum(bool((p.lr == 7).all()) for p in again.pictures) == 1
    assert not any((p.lr == 7).all() for p in first.pictures)


def test_validating_on_training_pictures_is_said(folder):
    _, lines = prepared(folder, f'data.val="{folder}/train"')
    assert "3 validation images are trained on, too (0.png)" in lines[1]


def paired(folder, scale=2):
    for i in range(3):
        hr = photo_like(64, 80 + scale * i, seed=i)
        save(folder / "hr" / "sub" / f"{i}.png", hr)
        small = 255 - shrink(hr, scale)  # tells it from a shrink of our own
        save(folder / "lr" / "sub" / (f"{i}.webp" if i == 0 else f"{i}x{scale}.png"), small)


@pytest.mark.parametrize("form", ["key", "table"])
@pytest.mark.parametrize("storage", ["memory", "mapped", "files"])
def test_paired_folders_are_used_as_they_are(folder, form, storage):
    paired(folder)
    overrides = {
        "key": (f'data.train=["{folder}/hr"]', f"data.lr={folder}/lr"),
        "table": (f'data.train=[{{path="{folder}/hr", lr="{folder}/lr"}}]',),
    }[form]
    sampler, lines = prepared(folder, f"data.storage={storage}", *overrides)
    assert lines[0].startswith("training on 3 of 3")
    for _ in range(3):
        lr, hr = sampler.batch(0, range(4))
        for small, large in zip(lr, hr, strict=True):
            wanted = 255 - shrink(large, 2)
            assert np.abs(small.astype(int) - wanted)[3:-3, 3:-3].mean() < 8


@pytest.mark.parametrize("storage", ["memory", "mapped", "files"])
def test_pictures_may_be_taken_at_half_their_size(folder, storage):
    both = f'data.train=["{folder}/train", {{path="{folder}/train", shrink=2}}]'
    sampler, lines = prepared(folder, both, "data.patch=12", f"data.storage={storage}")
    assert lines[0].startswith("training on 6 of 6")
    whole, half = sampler.pictures[0], sampler.pictures[3]
    assert whole.name == half.name
    assert half.size == (whole.size[0] // 2, whole.size[1] // 2)
    _, hr = half.crop(0, 0, *half.size)
    with Image.open(folder / "train" / whole.name) as image:
        box = (0, 0, 80, 60)
        small = np.asarray(image.resize((40, 30), Image.Resampling.LANCZOS, box=box))
    np.testing.assert_array_equal(hr, small)


def test_a_shrunk_picture_that_is_validated_on_is_told(folder):
    known = f'data.train=[{{path="{folder}/val", shrink=2}}]'
    _, lines = prepared(folder, known, "data.patch=8")
    assert any("trained on, too" in line for line in lines)
    with pytest.raises(ConfigError, match="cannot be shrunk"):
        prepared(folder, f'data.train=[{{path="{folder}/val", lr="{folder}/val", shrink=2}}]')


def test_pictures_are_drawn_beside_the_others(folder):
    sampler, lines = prepared(folder, "data.drawn=8", "data.drawn_weight=0.5")
    assert lines[0].startswith("training on 11 of 11")
    drawn = sampler.pictures[3:]
    assert len({picture.hr.tobytes() for picture in drawn}) == 8
    again, _ = prepared(folder, "data.drawn=8", "data.drawn_weight=0.5")
    for one, other in zip(drawn, again.pictures[3:], strict=True):
        np.testing.assert_array_equal(one.hr, other.hr)
        np.testing.assert_array_equal(one.lr, other.lr)
        assert one.weight == 0.5
    shrunk = [np.array_equal(picture.lr, shrink(picture.hr, 2)) for picture in drawn]
    assert shrunk == [True] * 4 + [False] * 4
    with pytest.raises(TrainingError, match="60 pixels a side"):
        prepared(folder, "data.drawn=8", "network.scale=8", "data.patch=64")
    other, _ = prepared(folder, "data.drawn=8", "run.seed=1")
    assert not np.array_equal(other.pictures[3].hr, drawn[0].hr)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_a_picture_drawn_at_two_resolutions_is_the_same_picture(scale):
    alike = 0
    for index in range(8):
        hr, lr = draw_pair(index, 3, scale)
        assert hr.shape == (lr.shape[0] * scale, lr.shape[1] * scale, 3)
        squares = hr.reshape(lr.shape[0], scale, lr.shape[1], scale, 3).mean((1, 3))
        assert np.abs(squares - lr).mean() < 12.0
        # What is aligned to pixels has the same hard edges in both.
        alike += bool((np.abs(squares - lr).max() == 0) and len(np.unique(lr)) > 1)
    assert alike > 0


def test_partners_that_are_missing_or_of_a_wrong_size_are_left_out(folder):
    paired(folder)
    (folder / "lr" / "sub" / "1x2.png").unlink()
    save(folder / "lr" / "sub" / "2x2.png", photo_like(30, 30))
    sampler, lines = prepared(folder, f'data.train=["{folder}/hr"]', f"data.lr={folder}/lr")
    assert [p.name for p in sampler.pictures] == ["0.png"]
    assert "1 without partner (1.png)" in lines[0]
    assert "1 size mismatch (2.png)" in lines[0]
    report = (folder / "run" / "data.md").read_text()
    assert "84x64 is not 2 times 30x30" in report


def test_odd_originals_pair_with_sides_rounded_up_or_down(folder):
    hr = photo_like(65, 81)
    even = hr[:64, :80]
    save(folder / "hr" / "a.png", hr)
    save(folder / "hr" / "b.png", hr[::-1])
    save(folder / "lr" / "a.png", shrink(even, 2))
    save(folder / "lr" / "b.png", np.pad(shrink(even, 2), ((0, 1), (0, 1), (0, 0)), mode="edge"))
    sampler, _ = prepared(folder, f'data.train=["{folder}/hr"]', f"data.lr={folder}/lr")
    assert [(p.hr.shape, p.lr.shape) for p in sampler.pictures] == [((64, 80, 3), (32, 40, 3))] * 2


def test_pictures_are_drawn_by_area_and_weight():
    pictures = [
        Pair(str(value), np.full((2 * h, 2 * w, 3), value, np.uint8),
             np.full((h, w, 3), value, np.uint8), weight)
        for value, (h, w), weight in ((0, (8, 8), 1.0), (1, (8, 16), 1.0), (2, (8, 8), 3.0))
    ]  # fmt: skip
    lr, _ = CropSampler(pictures, 2, 8, seed=0).batch(0, range(6000))
    drawn = np.bincount(lr[:, 0, 0, 0], minlength=3) / 6000
    np.testing.assert_allclose(drawn, [1 / 6, 2 / 6, 3 / 6], atol=0.03)


def test_grain_is_the_noise_of_one_crop_in_four_and_of_no_original():
    grey = [Pair("grey", np.full((64, 64, 3), 128, np.uint8), np.full((32, 32, 3), 128, np.uint8))]
    sampler = CropSampler(grey, 2, 32, seed=0, grain=3.0)
    lr, hr = sampler.batch(3, range(16))
    assert (hr == 128).all()
    deviations = lr.std(axis=(1, 2, 3))
    assert (deviations[np.arange(16) % 4 != 0] == 0).all()
    assert 0 < deviations[::4].max() < 3.5
    again, _ = sampler.batch(3, range(8, 12))
    np.testing.assert_array_equal(again, lr[8:12])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('data.train=[{path="a", wieght=2}]', "wieght"),
        ('data.train=[{path="a", weight=0}]', "greater than 0"),
        ("data.train=[]", "at least 1"),
        ('data.lr="x"', "one train folder"),
        ("degradation.kindd=3", "nearest known: kind"),
        ("degradation.codec.h264_crf=[30, 20]", "the smaller first, in 0..51"),
        ("degradation.codec.mix={mpeg7=1}", "mpeg7"),
    ],
)
def test_mistakes_in_the_sections_are_said(folder, override, message):
    extra = [f'data.train=["{folder}/train", "{folder}/val"]'] if "data.lr" in override else []
    with pytest.raises(ConfigError, match=message):
        load_config(folder / "config.toml", [*extra, override])


def test_work_ahead_keeps_its_order_and_its_errors_and_torch_its_threads():
    before = torch.get_num_threads()
    with closing(prefetch(lambda i: (i, torch.get_num_threads()), 5, 3)) as results:
        assert list(itertools.islice(results, 20)) == [(i, 1) for i in range(5, 25)]
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), closing(prefetch(lambda i: 1 // (2 - i), 0, 2)) as all_:
        list(all_)


def test_the_preview_shows_the_first_crops_of_the_run(folder):
    config = load_config(folder / "config.toml")
    path = write_preview(config, 3, lambda _: None)
    assert path == folder / "run" / PREVIEW_FILE
    sampler, _ = prepared(folder)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), contact_sheet(*sampler.batch(0, range(3))))


def test_a_contact_sheet_holds_each_crop_once():
    lr = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 150, 150, 3), np.uint8)
    hr = 100 + lr.repeat(2, axis=1).repeat(2, axis=2)
    sheet = contact_sheet(lr, hr)
    counts = np.bincount(sheet[..., 0].reshape(-1), minlength=256)
    assert list(counts[:5]) == [90000] * 5
    assert list(counts[100:105]) == [90000] * 5
