"""Clips as jobs of the HTTP service: whole, resumable, private, bounded."""

from __future__ import annotations

import signal
from dataclasses import replace

import httpx
import pytest

from clips import irregular, make_clip
from paragonsr2.errors import UsageError
from paragonsr2.serve.job_store import Job, JobStore
from paragonsr2.serve.limits import Limits
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler

pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")
from serving import Gate, ended, picture, serving, start_service

LIMITS = Limits(body_bytes=10**6, result_pixels=2_000_000)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    make_clip(path, irregular(12), sounds=1)
    return path


@pytest.fixture(scope="module")
def expected(clip):
    """The bytes that the command writes."""
    target = clip.with_name("target.mkv")
    assert run_task(Task(clip, target), Upscaler("realtime", 2)).status == "done"
    return target.read_bytes()


def begin(running, clip, query=""):
    answer = running.post(f"/v1/jobs?name=my%20clip.mkv{query}", clip.read_bytes())
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return answer.json()["id"]


def test_a_job_gives_what_the_command_makes_of_the_clip(tmp_path, clip, expected):
    with serving(tmp_path, LIMITS) as running:
        job = begin(running, clip)
        about = ended(running.get, job)
        assert (about["state"], about["share"], about["frames"]) == ("done", 1.0, 12), about
        result = running.get(about["result"])
        assert result.content == expected
        assert "my%20clip_x2.mkv" in result.headers["content-disposition"]
        part = running.get(about["result"], headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, expected[10:20])
        form = running.post(
            "/v1/jobs",
            None,
            files={"file": ("../../a clip.mp4.mkv", clip.read_bytes())},
            data={"model": "bicubic", "codec": "hevc"},
        )
        other = ended(running.get, form.json()["id"])
        assert (other["state"], other["name"]) == ("done", "a clip.mp4.mkv")
        for one in (job, other["id"]):
            assert running.delete(f"/v1/jobs/{one}").status_code == 204
            assert running.get(f"/v1/jobs/{one}").status_code == 404
        assert running.files() == []


def test_what_cannot_become_a_result_is_refused_at_once(tmp_path, clip):
    with serving(tmp_path, replace(LIMITS, result_pixels=64 * 36 * 4)) as running:
        content = clip.read_bytes()
        for query, body, status in (
            ("", content, 415), ("name=a.png", content, 415), ("name=a.mkv", b"", 422),
            ("name=a.mkv", picture(), 422), ("name=a.mkv", content[:300], 422),
            ("name=a.mkv&model=/etc/passwd", content, 422), ("name=a.mkv&scale=4", content, 413),
            ("name=a.mkv&codec=exe", content, 422), ("name=a.webm&codec=h264", content, 422),
        ):  # fmt: skip
            answer = running.post(f"/v1/jobs?{query}", body)
            assert answer.status_code == status, (query, answer.text)
            assert str(tmp_path) not in answer.text
        assert running.files() == []
        assert running.parts.spool.used == 0


def test_jobs_wait_are_cancelled_and_are_bounded(tmp_path, clip, monkeypatch):
    with serving(tmp_path, replace(LIMITS, jobs=3)) as running:
        gate = Gate(running, monkeypatch)
        first, second, third = (begin(running, clip) for _ in range(3))
        gate.wait_for(1)
        assert running.get(f"/v1/jobs/{first}").json()["state"] == "running"
        assert running.get(f"/v1/jobs/{third}").json()["state"] == "queued"
        assert running.get(f"/v1/jobs/{third}/result").status_code == 409
        refused = running.post("/v1/jobs?name=a.mkv", clip.read_bytes())
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        for job in (first, second):
            assert running.delete(f"/v1/jobs/{job}").status_code == 204
            assert running.get(f"/v1/jobs/{job}").json()["state"] == "cancelled"
        gate.open()
        assert ended(running.get, third)["state"] == "done"
        assert [path.name for path in running.files()] == [third]


def test_a_job_that_takes_too_long_or_too_much_fails(tmp_path, clip):
    for limits in (replace(LIMITS, job_seconds=0), replace(LIMITS, disk_bytes=60_000)):
        with serving(tmp_path, limits) as running:
            about = ended(running.get, begin(running, clip))
            assert about["state"] == "failed"
            assert "than the" in about["message"]
            while running.files():
                pass


def test_only_who_knows_the_id_finds_a_job(tmp_path, clip):
    with serving(tmp_path, LIMITS) as running:
        job = begin(running, clip)
        assert len(job) == 32, "128 random bits"
        assert running.get("/v1/jobs").status_code == 405, "there is no list"
        for guess in (job[:-1], job + "x", job + "/", "%", "_" * 32, "' OR ''='", "..", "*"):
            for path in (f"/v1/jobs/{guess}", f"/v1/jobs/{guess}/result"):
                answer = running.get(path)
                assert answer.status_code in (404, 307), path
                assert job not in answer.text
        assert ended(running.get, job)["state"] == "done"


def test_ended_jobs_expire(tmp_path, clip):
    with serving(tmp_path, replace(LIMITS, keep_seconds=-1)) as running:
        job = begin(running, clip)
        ended(running.get, job)
        running.parts.runner.expire()
        assert running.get(f"/v1/jobs/{job}").status_code == 404
        while running.files():
            pass


def test_a_stopped_service_puts_its_jobs_off(tmp_path, clip, expected, monkeypatch):
    with serving(tmp_path, LIMITS) as running:
        gate = Gate(running, monkeypatch)
        jobs = [begin(running, clip) for _ in range(2)]
        gate.wait_for(1)
        running.parts.runner._closing.set()  # the service stops while the first job runs
        running.parts.runner._running.stop.set()
        gate.open()
    (tmp_path / "files" / "left by a request").mkdir()
    with serving(tmp_path, LIMITS) as running:
        assert {path.name for path in running.files()} == set(jobs)
        for job in jobs:
            assert ended(running.get, job)["state"] == "done"
            assert running.get(f"/v1/jobs/{job}/result").content == expected


def start(folder, log):
    process, url = start_service(folder, log)
    return process, httpx.Client(base_url=url, timeout=60, transport=httpx.HTTPTransport(retries=3))


def test_after_a_kill_all_jobs_are_done_or_queued_and_end_right(tmp_path, clip, expected):
    with (tmp_path / "log").open("w") as log:
        process, client = start(tmp_path / "s", log)
        content = clip.read_bytes()
        jobs = [client.post("/v1/jobs?name=a.mkv", content=content).json()["id"] for _ in range(10)]
        while client.get(f"/v1/jobs/{jobs[1]}").json()["state"] == "queued":
            pass
        process.kill()
        process.wait()
        process.stdout.close()
        client.close()
        process, client = start(tmp_path / "s", log)
        states = [client.get(f"/v1/jobs/{job}").json()["state"] for job in jobs]
        assert set(states) <= {"done", "running", "queued"}
        assert states[0] == "done"
        for job in jobs:
            about = ended(client.get, job)
            assert about["state"] == "done", about
            assert client.get(about["result"]).content == expected
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.stdout.close()
        client.close()


def job(name):
    return Job(name, "a.mkv", "realtime", 2, "", None, created=0.0)


def test_a_job_that_kills_the_service_is_given_up(tmp_path):
    for number in range(4):
        store = JobStore(tmp_path / "jobs.sqlite")
        if number == 0:
            store.add(job("poison"))
            store.add(job("good"))
        store.recover()
        assert store.take().id == ("poison" if number < 3 else "good")
        store.close()  # as the end of the process does
    store = JobStore(tmp_path / "jobs.sqlite")
    assert store.get("poison").state == "failed"
    assert "died in each of 3 runs" in store.get("poison").message
    store.put_off("good")
    assert (store.get("good").state, store.get("good").runs) == ("queued", 0)
    store.close()


def test_two_services_do_not_share_a_folder(tmp_path):
    store = JobStore(tmp_path / "jobs.sqlite")
    with pytest.raises(UsageError, match="stop the service"):
        JobStore(tmp_path / "jobs.sqlite")
    store.close()
    (tmp_path / "other.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(UsageError, match="cannot use"):
        JobStore(tmp_path / "other.sqlite")


def test_a_folder_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="another --folder"), serving(tmp_path / "file", LIMITS):
        pass


def test_expiry_goes_by_the_end_of_a_job(tmp_path):
    now = [1000.0]
    store = JobStore(tmp_path / "jobs.sqlite", lambda: now[0])
    for name in ("a", "b"):
        store.add(job(name))
    store.take()
    store.finish("a", "done", "")
    now[0] = 1100.0
    assert [one.id for one in store.expired(99)] == ["a"]
    assert store.expired(101) == []
    store.close()
