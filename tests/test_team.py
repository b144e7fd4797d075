"""Several engines with one model, such as one on each GPU; here they share a CPU."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from clips import make_clip, regular
from conftest import photo_like
from paragonsr2.errors import BackendError, UsageError
from paragonsr2.serve.gather import GatheringBackend
from paragonsr2.upscale.backends import ClassicalBackend
from paragonsr2.upscale.background import in_order
from paragonsr2.upscale.pictures import PictureOptions, enlarge_pictures
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.team import team_of
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import VideoOptions, upscale_video

SIZE = 3


class Meeting(ClassicalBackend):
    """Goes on when all members of its team compute at the same time."""

    def __init__(self, barrier):
        super().__init__(2, 0.0)
        self.barrier, self.calls, self.max_side = barrier, 0, 64

    def run(self, x):
        self.calls += 1
        self.barrier.wait(60)
        return super().run(x)


@pytest.fixture
def members():
    barrier = threading.Barrier(SIZE)
    return [Meeting(barrier) for _ in range(SIZE)]


def test_the_tiles_of_one_picture_are_shared(members):
    pixels = photo_like(40, 16 * 2 * SIZE)
    upscaler = Upscaler.around(team_of(members), tile=16)
    np.testing.assert_array_equal(upscaler(pixels), Upscaler("magic", 2, tile=16)(pixels))
    assert {member.calls for member in members} == {6}


def test_a_service_uses_all_members(members):
    gathering = GatheringBackend(team_of(members), None, lambda _: None)
    tiles = [np.full((1, 3, 8, 8), value, np.float32) for value in np.linspace(0, 1, 2 * SIZE)]
    with ThreadPoolExecutor(2 * SIZE) as threads:
        results = list(threads.map(gathering.run, tiles))
    for tile, result in zip(tiles, results, strict=True):
        np.testing.assert_allclose(result.mean(), tile.mean(), atol=1e-6)


def test_a_team_takes_what_its_narrowest_member_takes(members):
    members[1].max_side = 48
    assert Upscaler.around(team_of(members)).tile == 48 - 2 * members[0].halo
    assert team_of(members[:1]) is members[0]


def test_two_engines_give_the_bytes_of_one(tmp_path):
    sources = []
    for number, size in enumerate([(20, 24), (70, 50), (33, 41)]):
        sources.append(tmp_path / f"{number}.png")
        Image.fromarray(photo_like(*size, seed=number)).save(sources[-1])
    found = []
    for device in ("cpu", "cpu, cpu"):
        folder = tmp_path / device.replace(", ", "_")
        folder.mkdir()
        upscaler = Upscaler("realtime", 2, device=device, tile=16)
        tasks = [Task(source, folder / source.name) for source in sources]
        outcomes = list(enlarge_pictures(tasks, upscaler, PictureOptions()))
        assert [outcome.status for outcome in outcomes] == ["done"] * 3
        found.append([task.target.read_bytes() for task in tasks])
    assert found[0] == found[1]


def test_the_frames_of_a_clip_keep_their_order(tmp_path):
    source = tmp_path / "clip.mkv"
    make_clip(source, regular(12))
    results = []
    for device in ("cpu", "cpu,cpu"):
        target = tmp_path / f"{len(results)}.mkv"
        upscaler = Upscaler("realtime", 2, device=device)
        upscale_video(source, target, upscaler, VideoOptions(preset="ultrafast"))
        results.append(target.read_bytes())
    assert results[0] == results[1]


def test_work_in_order_stops_with_the_first_failure():
    def work(item):
        if item == 3:
            raise BackendError("no")
        return item

    given = iter(range(1000))
    results = in_order(work, given, 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(BackendError):
        next(results)
    assert next(given) < 10


def test_each_device_must_be_one(tmp_path):
    for device in ("cpu,", "cpu,nonsense"):
        with pytest.raises((BackendError, UsageError)):
            Upscaler("realtime", 2, device=device)
