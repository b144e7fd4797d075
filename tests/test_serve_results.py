"""Pictures as jobs, previews, and several results in one ZIP."""

from __future__ import annotations

import io
import sqlite3
import zipfile
from dataclasses import replace
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from clips import irregular, make_clip
from conftest import photo_like
from paragonsr2.upscale.by_file import suited_to
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task, TaskProgress
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import VideoOptions
from paragonsr2.weights.purposes import QUICK_FOR_CLIPS

pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")
from paragonsr2.serve import runner as runners
from paragonsr2.serve.job_store import JobStore
from serving import LIMITS, Gate, ended, picture

HOSTILE_NAMES = [
    "../../../../etc/cron.d/x.png", "..\\..\\windows\\x.png", "/etc/passwd.png", "C:\\x.png",
    "....//....//x.png", "x.png/../../y.png", "%2e%2e%2fx.png", "..%c0%afx.png", ".png", "..png",
    "a\x00b.png", "a\r\nSet-Cookie: x.png", "\u202egnp.exe.png", "x" * 900 + ".png", "CON.png",
    "~/x.png", "$(touch y).png", "`id`.png", "-rf.png", "<img src=x onerror=alert(1)>.png",
    "'; DROP TABLE x.png", "x.PnG", " x .png ", "日本.png", "e\u0301.png", "a/b/c.png", "",
    "file:x.png", "http://127.0.0.1/x.png", "x.png?y=.png", "\ufeff.png", "x.html", "x",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A clip, and what the command makes of it with H.264 of quality 40 in an MP4."""
    folder = tmp_path_factory.mktemp("clip")
    source, target = folder / "clip.mkv", folder / "target.mp4"
    make_clip(source, irregular(30), sounds=1)
    options = VideoOptions(codec="h264", quality=40)
    assert run_task(Task(source, target), Upscaler("bicubic", 2), video=options).status == "done"
    return source.read_bytes(), target.read_bytes()


def begin(running, content, name="a.png", query=""):
    answer = running.post(f"/v1/jobs?name={quote(name)}&{query}", content)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def finished(running, *args, **options):
    about = ended(running.get, begin(running, *args, **options))
    assert about["state"] == "done", about
    return about


@pytest.fixture
def tidy(running):
    """A service; the jobs of the test are forgotten at its end."""
    yield running
    while running.parts.runner.forget_oldest():
        pass


def name_given(answer):
    """The file's name in an answer, still quoted where the header quotes it."""
    _, _, given = answer.headers["content-disposition"].partition("filename")
    return given.removeprefix("*=utf-8''").removeprefix("=").strip('"')


@pytest.mark.parametrize(
    ("kind", "name", "wanted", "to"),
    [("PNG", "my photo.png", "keep", ".png"), ("JPEG", "a.jpeg", "webp", ".webp"),
     ("JPEG", "wrong.png", "keep", ".jpg"), ("TIFF", "a.TIF", "jpg", ".jpg")],
)  # fmt: skip
def test_a_picture_is_a_job_like_a_clip(tidy, tmp_path, kind, name, wanted, to):
    suffix = ".jpg" if kind == "JPEG" else f".{kind.lower()}"
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{to}"
    source.write_bytes(picture(kind))
    model = suited_to(source, 2)
    run_task(Task(source, target), Upscaler(model, 2), quality=70)
    about = finished(tidy, picture(kind), name, query=f"format={wanted}&quality=70")
    answer = tidy.get(about["result"])
    assert answer.content == target.read_bytes()
    assert answer.headers["content-type"].startswith("image/")
    stem = name.rpartition(".")[0].replace(" ", "%20")
    assert name_given(answer) == f"{stem}_x2{to}"
    assert (about["width"], about["height"], about["pages"], about["frames"]) == (64, 48, 1, 0)
    assert about["bytes"] == len(answer.content)
    assert about["seconds"] > 0
    assert "onnxruntime" in about["backend"]


def test_a_coarse_clip_is_mended_unasked(tidy, tmp_path):
    path = tmp_path / "coarse.mp4"
    make_clip(path, irregular(3), options={"qp": "36"})
    about = finished(tidy, path.read_bytes(), "a.mp4")
    assert about["state"] == "done"
    assert about["model"] == suited_to(path, 2) == QUICK_FOR_CLIPS[2].model


def test_a_job_has_a_strength(tidy, tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    source.write_bytes(picture())
    run_task(Task(source, target), Upscaler("stream:real@0.35", 2))
    about = finished(tidy, picture(), "a.png", query="model=stream:real&strength=0.35")
    assert tidy.get(about["result"]).content == target.read_bytes()
    assert (about["model"], about["strength"]) == ("stream:real", 0.35)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_an_animation_counts_all_its_frames(make_running, kind):
    frames = [Image.fromarray(photo_like(24, 32, seed=seed)) for seed in range(3)]
    moving = io.BytesIO()
    frames[0].save(moving, kind, save_all=True, append_images=frames[1:], duration=40)
    pixels = 32 * 24 * 3 * 4
    for most, status in ((pixels, 202), (pixels - 1, 413)):
        with make_running(replace(LIMITS, result_pixels=most)) as running:
            answer = running.post("/v1/jobs?name=a.png&model=bicubic", moving.getvalue())
            assert answer.status_code == status
            if status == 202:
                assert ended(running.get, answer.json()["id"])["pages"] == 3


def test_what_does_not_go_together_is_refused(running, made):
    clip, _ = made
    for query, body, status in (
        ("name=a.png&codec=h264", picture(), 422), ("name=a.png&format=mp4", picture(), 422),
        ("name=a.mkv&format=png", clip, 422), ("name=a.png&format=exe", picture(), 422),
        ("name=a.png&model=/etc/passwd.onnx", picture(), 422),
        ("name=a.png&scale=7", picture(), 422),
        ("name=a.webp", b"RIFF\0\0\0\0WEBPVP8L", 422), ("name=a.png", b"no picture", 415),
        ("name=a.png&quality=0", picture(), 422),
        ("name=a.png&strength=0.5", picture(), 422),
        ("name=a.png&model=stream:real&strength=2", picture(), 422),
        ("name=a.png&model=stream:real&strength=nan", picture(), 422),
    ):  # fmt: skip
        answer = running.post(f"/v1/jobs?{query}", body)
        assert answer.status_code == status, (query, answer.text)
        assert str(running.parts.spool.root) not in answer.text


def test_codec_quality_and_container_are_those_of_the_command(tidy, made):
    clip, expected = made
    query = "model=bicubic&format=mp4&codec=h264&quality=40"
    about = finished(tidy, clip, "my clip.mkv", query=query)
    answer = tidy.get(about["result"])
    assert answer.content == expected
    assert answer.headers["content-type"] == "video/mp4"
    assert name_given(answer) == "my%20clip_x2.mp4"


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_is_one_plain_part_and_never_the_path(tidy, name):
    about = finished(tidy, picture(), name, query="model=bicubic")
    assert 0 < len(about["name"]) <= 105
    assert not set(about["name"]) & set('/\\\0\r\n\u202e<>:"|?*')
    (folder,) = tidy.files()
    assert {path.name for path in folder.iterdir()} <= {"source.png", "result.png"}
    answer = tidy.get(about["result"])
    assert answer.headers["content-disposition"].startswith("attachment; ")


def test_results_come_in_one_zip(tidy, made):
    clip, _ = made
    jobs = [
        finished(tidy, picture(seed=seed), "same.png", query="model=bicubic") for seed in (1, 2)
    ]
    jobs.append(finished(tidy, clip, "clip.mkv", query="model=bicubic"))
    answer = tidy.get("/v1/results", params={"id": [job["id"] for job in jobs]})
    assert answer.headers["content-disposition"] == 'attachment; filename="paragonsr2.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["same_x2.png", "same_x2 (2).png", "clip_x2.mkv"]
        for name, job in zip(archive.namelist(), jobs, strict=True):
            assert archive.read(name) == tidy.get(job["result"]).content
    # Who does not know all of them gets none.
    ids = [jobs[0]["id"], "0" * 32]
    assert tidy.get("/v1/results", params={"id": ids}).status_code == 404
    assert tidy.get("/v1/results").status_code == 422
    assert tidy.get("/v1/results", params={"id": ["x"] * 1001}).status_code == 422


def test_a_preview_is_what_any_browser_shows(tidy, made):
    clip, _ = made
    deep = io.BytesIO()
    Image.fromarray(photo_like(24, 32).astype(np.uint16)[..., 0] * 257).save(deep, "TIFF")
    for name, content, size in (
        ("a.tif", deep.getvalue(), (32, 24)), ("a.mkv", clip, (64, 36)),
        ("", picture("WEBP"), (32, 24)),
    ):  # fmt: skip
        answer = tidy.post("/v1/preview", content, params={"name": name})
        assert answer.status_code == 200, answer.text
        shown = Image.open(io.BytesIO(answer.content))
        assert (shown.format, shown.size) == ("PNG", size)
        assert shown.mode in ("L", "RGB")
    for content, status in ((b"", 422), (b"no picture", 422), (picture()[:300], 422)):
        answer = tidy.post("/v1/preview?name=a.png", content)
        assert answer.status_code == status, answer.text
        assert str(tidy.parts.spool.root) not in answer.text


def test_a_preview_of_a_clip_shows_the_same_frame_before_and_after(tidy, made):
    clip, _ = made
    about = finished(tidy, clip, "a.mkv", query="model=bicubic")
    contents = [
        tidy.post("/v1/preview?name=a.mkv", clip).content,
        tidy.get(f"/v1/jobs/{about['id']}/preview").content,
    ]
    before, after = (Image.open(io.BytesIO(content)) for content in contents)
    assert (before.size, after.size) == ((64, 36), (128, 72))
    small = np.asarray(after.resize(before.size), dtype=float)
    assert np.abs(small - np.asarray(before, dtype=float)).mean() < 8
    while [path.name for path in tidy.files()] != [about["id"]]:  # previews are not kept
        pass


def test_a_job_that_is_not_done_has_no_preview_and_is_in_no_zip(make_running, monkeypatch):
    with make_running() as running:
        gate = Gate(running, monkeypatch)
        job = begin(running, picture())
        gate.wait_for()
        for place in (f"/v1/jobs/{job}/preview", f"/v1/results?id={job}"):
            assert running.get(place).status_code == 409
        gate.open()
        ended(running.get, job)


def test_the_oldest_results_make_room_and_the_bound_holds(make_running):
    content = picture(height=90, width=120)
    limits = replace(LIMITS, disk_bytes=400_000, drop_oldest=True)
    with make_running(limits) as running:
        jobs = [finished(running, content, query="model=bicubic")["id"] for _ in range(12)]
        while running.parts.spool.used > limits.disk_bytes:  # the last one has just ended
            pass
        there = [running.get(f"/v1/jobs/{job}").status_code == 200 for job in jobs]
        assert there == sorted(there), "the oldest went first"
        assert there[-1]
        assert not there[0]
        refused = running.post("/v1/jobs?name=a.png", iter([content, bytes(390_000)]))
        assert refused.status_code in (413, 503)


def test_a_picture_out_of_time_fails_without_a_trace(make_running):
    with make_running(replace(LIMITS, job_seconds=-1)) as running:
        about = ended(running.get, begin(running, picture()))
        assert about["state"] == "failed"
        assert "longer than" in about["message"]
        assert "bytes" in about
        while running.files():
            pass


def test_the_time_left_follows_from_the_pace(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(runners.time, "monotonic", lambda: clock[0])
    run = runners._Run("x", None, clock[0])
    assert run.left() is None
    # Of 80 frames an earlier run had done 40; this one does 10 in 5 seconds, so 30 take 15.
    clock[0] = 105.0
    run.advance(TaskProgress(None, 50 / 80, frames=50, total=80, resumed=40))
    assert run.left() == pytest.approx(15)
    clock[0] = 109.0
    assert run.left() == pytest.approx(11), "the clock goes on between two reports"
    clock[0] = 200.0
    assert run.left() == 0
    run.advance(TaskProgress(None, 1.0, frames=80, total=80, resumed=40))
    assert run.left() == 0


def test_jobs_of_an_earlier_version_are_kept(tmp_path):
    path = tmp_path / "jobs.sqlite"
    with sqlite3.connect(path) as old:
        columns = (
            "id, name, model, scale, codec, quality, created, state, ended, runs, frames, message"
        )
        old.execute(f"CREATE TABLE jobs ({columns}, PRIMARY KEY (id))")
        old.execute(
            f"INSERT INTO jobs ({columns}) VALUES "
            "('x', 'a.mkv', 'realtime', 2, '', NULL, 1.0, 'queued', NULL, 0, 0, '')"
        )
    old.close()
    store = JobStore(path)
    job = store.get("x")
    assert (job.format, job.pages, job.width, job.backend) == ("keep", 1, 0, "")
    store.close()
