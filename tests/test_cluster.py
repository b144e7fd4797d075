"""Jobs on a cluster of two nodes: the same bytes as on one machine, whatever dies on the way."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import httpx
import psutil
import pytest

from clips import make_clip, regular
from conftest import photo_like
from paragonsr2 import errors
from paragonsr2.clips.segments import work_folder
from paragonsr2.cluster import job as jobs
from paragonsr2.cluster import pool as pools
from paragonsr2.cluster.connect import check_address, connected
from paragonsr2.cluster.job import JobOptions, probe, run_on_cluster
from paragonsr2.cluster.orders import Recipe, WorkerFacts
from paragonsr2.cluster.pool import Pool, PoolOptions
from paragonsr2.errors import ClusterError, MissingExtraError, ParagonError, UsageError
from paragonsr2.images.header import Picture
from paragonsr2.images.writing import write_picture
from paragonsr2.upscale.job import run_task, run_tasks
from paragonsr2.upscale.naming import plan_tasks
from paragonsr2.upscale.pictures import PictureOptions
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import EngineFacts, Upscaler
from paragonsr2.upscale.video import VideoOptions

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Ray clusters are of Linux machines"),
    # Ray leaves sockets and files to the end of the process.
    pytest.mark.filterwarnings("ignore"),
]

CLIPS = VideoOptions(segment=20, preset="ultrafast")
TILE = 64


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core, and a head without any."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's workers are nice to other programs, such as the other half of the tests.
        patch.setenv("RAY_worker_niceness", "0")
        made = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        made.pair = nodes
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def pool(cluster):
    options = {"tile": TILE, "device": "cpu"}
    with connected(cluster.address) as ray, closing(Pool(ray, Recipe("realtime", 2, options))) as p:
        assert p.size == 2
        yield p


@pytest.fixture(scope="module")
def upscaler():
    return Upscaler("realtime", 2, tile=TILE, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 photos, one that is none, and a clip of 300 frames with sound."""
    made = tmp_path_factory.mktemp("in")
    for number in range(60):
        suffix = (".png", ".jpg", ".webp", ".tif")[number % 4]
        pixels = photo_like(16 + number, 40, seed=number)
        write_picture(made / f"{number:02d}{suffix}", Picture(pixels))
    (made / "bad.png").write_bytes(b"no picture")
    make_clip(made / "clip.mkv", regular(300), sounds=1)
    return made


@pytest.fixture(scope="module")
def wanted(folder, upscaler, tmp_path_factory):
    """What one machine makes of the folder."""
    out = tmp_path_factory.mktemp("local")
    tasks = plan_tasks([str(folder)], out, 2)
    return list(run_tasks(tasks, upscaler, video=CLIPS)), content(out)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def told(outcomes):
    return [(one.source, one.status, one.message, one.width, one.frames) for one in outcomes]


def run(pool, tasks, progress=None, **options):
    options = {"clips": CLIPS, **options}
    return run_on_cluster(tasks, pool, JobOptions(**options), progress)


@pytest.mark.parametrize("transfer", [False, True])
def test_a_folder_becomes_what_one_machine_makes_of_it(pool, folder, wanted, tmp_path, transfer):
    tasks = plan_tasks([str(folder)], tmp_path, 2)
    seen = []
    outcomes = list(run(pool, tasks, seen.append, transfer=transfer))
    assert told(outcomes) == told(wanted[0])
    assert content(tmp_path) == wanted[1]
    assert seen[-1].task.source.name == "clip.mkv"
    assert 0 < seen[-1].share <= 1
    again = list(run(pool, tasks, transfer=transfer))
    assert {one.status for one in again} == {"skipped", "failed"}


def test_a_worker_stays_with_its_clip_and_nobody_idles(pool, upscaler, tmp_path):
    """With teams of one, two clips are made at the same time, each decoded once."""
    tasks = []
    for name in ("a.mkv", "b.mkv", "c.mkv"):
        make_clip(tmp_path / name, regular(70))
        tasks.append(Task(tmp_path / name, tmp_path / "out" / name))
    while len(pool._idle) < 2:
        pool.wait(1.0)
    given = []

    class Watched:
        """The pool, with an eye on what it gives out."""

        def __getattr__(self, name):
            return getattr(pool, name)

        def submit(self, unit):
            given.append((pool.idle_worker, unit.source.name))
            pool.submit(unit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "_TEAM", 1)
        outcomes = list(run_on_cluster(tasks, Watched(), JobOptions(clips=CLIPS)))
    assert [one.status for one in outcomes] == ["done"] * 3
    assert given[0][0] is not given[1][0]
    assert {name for _, name in given[:2]} == {"a.mkv", "b.mkv"}
    for task in tasks:
        alone = Task(task.source, tmp_path / "alone" / task.target.name)
        assert run_task(alone, upscaler, video=CLIPS).status == "done"
        assert alone.target.read_bytes() == task.target.read_bytes()


def workers():
    """The processes of workers, while they work or wait."""
    return [p for p in psutil.process_iter(["name"]) if p.info["name"].startswith("ray::Worker")]


def test_killed_workers_lose_nothing(pool, folder, wanted, tmp_path):
    tasks = plan_tasks([str(folder)], tmp_path, 2)
    left = [3, 40, 61]  # in the photos, and in the clip

    def kill(state):
        if left and len(outcomes) + (state.frames > 60) >= left[0]:
            left.pop(0)
            workers()[0].send_signal(signal.SIGKILL)

    outcomes = []
    outcomes.extend(run(pool, tasks, kill))
    assert len(left) < 2  # the last picture may come after the clip's last moment
    assert told(outcomes) == told(wanted[0])
    assert content(tmp_path) == wanted[1]


def test_a_picture_that_kills_its_workers_fails_alone(pool, folder, wanted, tmp_path):
    tasks = plan_tasks([str(folder / "1*")], tmp_path, 2)
    poison = Task(tmp_path / "poison.png", tmp_path / "out" / "poison.png")
    write_picture(poison.source, Picture(photo_like(1400, 1400)))
    over, killed = threading.Event(), []

    def kill():
        while not over.wait(0.01):
            for process in workers():
                try:
                    held = [file.path for file in process.open_files()]
                except psutil.Error:
                    continue
                if any("/.poison." in path for path in held):
                    process.kill()
                    killed.append(process.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        outcomes = list(run(pool, [tasks[0], poison, *tasks[1:]]))
    finally:
        over.set()
        killer.join()
    assert len(set(killed)) == 2
    assert [one.source for one in outcomes if one.status != "done"] == [poison.source]
    assert "2 workers died of it" in outcomes[1].message
    assert not poison.target.exists()
    for outcome in (one for one in outcomes if one.status == "done"):
        assert outcome.target.read_bytes() == wanted[1][outcome.target.name]


def interrupted(running):
    """Begin a job on one clip, and give it up in the middle."""
    with pytest.raises(InterruptedError):
        list(running)


def after(frames):
    def stop(state):
        if state.kept >= frames:
            raise InterruptedError

    return stop


def test_a_clip_goes_on_elsewhere(pool, folder, wanted, upscaler, tmp_path):
    task = Task(folder / "clip.mkv", tmp_path / "clip.mkv")
    interrupted(run_tasks([task], upscaler, video=CLIPS, progress=after(60)))
    (outcome,) = run(pool, [task])
    assert outcome.resumed >= 60
    assert task.target.read_bytes() == wanted[1]["clip.mkv"]
    task.target.unlink()
    interrupted(run(pool, [task], after(60)))
    assert work_folder(task.target).is_dir()
    outcome = run_task(task, upscaler, video=CLIPS)
    assert outcome.resumed >= 60
    assert task.target.read_bytes() == wanted[1]["clip.mkv"]
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mkv"]


def test_two_runs_of_one_folder_share_the_work(pool, folder, upscaler, tmp_path):
    from paragonsr2.files import atomic_path

    tasks = plan_tasks([str(folder / "0*.png")], tmp_path, 2)
    for transfer in (False, True):
        with atomic_path(tasks[0].target, alone=True) as part:
            part.write_bytes(b"of another run")
            outcomes = list(run(pool, tasks, transfer=transfer))
        assert [one.status for one in outcomes] == ["skipped"] + ["done"] * (len(tasks) - 1)
        assert "another run" in outcomes[0].message
        for task in tasks:
            task.target.unlink()


def test_a_node_dies_and_is_replaced(cluster, pool, folder, wanted, tmp_path):
    tasks = plan_tasks([str(folder)], tmp_path, 2)
    outcomes = []
    for outcome in run(pool, tasks):
        outcomes.append(outcome)
        if len(outcomes) == 30:
            cluster.remove_node(cluster.pair.pop(0), allow_graceful=False)
            cluster.pair.append(cluster.add_node(num_cpus=1, wait=False))
    assert told(outcomes) == told(wanted[0])
    assert content(tmp_path) == wanted[1]


def test_the_service_on_a_cluster_gives_the_same_bytes(pool, folder, wanted):
    """Behind Ray Serve, beside a job; clips are refused, for they belong to ``upscale --ray``."""
    from ray import serve

    from paragonsr2.cluster.serving import build

    with pytest.raises(errors.OptionError, match="replicas"):
        build({"replica": "2"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(build({"cpus": "0", "device": "cpu"}), name="paragonsr2")
        picture = (folder / "00.png").read_bytes()
        url = f"http://127.0.0.1:{port}"
        answer = httpx.post(f"{url}/v1/upscale?model=realtime&scale=2", content=picture, timeout=99)
        assert answer.status_code == 200
        assert answer.content == wanted[1]["00.png"]
        clip = (folder / "clip.mkv").read_bytes()
        answer = httpx.post(f"{url}/v1/jobs?model=realtime", content=clip, timeout=99)
        assert answer.status_code == 429
        assert httpx.get(f"{url}/readyz", timeout=99).status_code == 200
    finally:
        serve.shutdown()


def test_the_command_on_a_cluster_of_its_own(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write_picture(tmp_path / "in" / name, Picture(photo_like(20, 24)))
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    command = [sys.executable, "-m", "paragonsr2", "upscale", "in", "-o", "out", "-m", "magic"]
    done = subprocess.run(
        [*command, "--ray", "local", "--ray-workers", "1", "--events"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events if event["event"] != "progress"]
    assert kinds == ["start", *["result"] * 4, "end"]
    assert events[0]["backend"] == "numpy CPU fp32"
    results = [event for event in events if event["event"] == "result"]
    assert [one["input"] for one in results] == [f"in/{n}.png" for n in ("a", "b", "bad", "c")]
    assert done.stderr.startswith("in/bad.png: failed: in/bad.png is not an image")
    assert len(done.stderr.splitlines()) == 1
    # The token of the cluster is not left in the user's folder.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("address", ["", "here", "ray://", "ray://host", "http://a:1", "a:b"])
def test_an_address_that_is_none_is_refused_at_once(address):
    with pytest.raises(UsageError, match=r"ray://HOST:PORT"):
        check_address(address)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "paragonsr2.cluster.worker", raising=False)
    with pytest.raises(MissingExtraError, match=r"paragonsr2\[cluster\]"), connected("local"):
        pass


@contextmanager
def refusing(monkeypatch, error):
    def refuse(**_):
        raise error

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    yield


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("auto", ConnectionError("Could not find any"), "ray start --head"),
        ("ray://h:1", ConnectionError("ray client connection timeout"), "firewall"),
        ("h:1", RuntimeError("Failed to connect to GCS"), "no Ray cluster answers at h:1"),
        ("h:1", RuntimeError("Version mismatch: Ray 1"), "install the same"),
        ("h:1", RuntimeError("Unauthenticated: InvalidAuthToken"), "RAY_AUTH_TOKEN_PATH"),
        ("local", OSError("no space left"), "no space left"),
    ],
)
def test_a_cluster_that_cannot_be_joined_says_what_mends_it(monkeypatch, address, error, words):
    with (
        refusing(monkeypatch, error),
        pytest.raises(ClusterError, match=words) as raised,
        connected(address),
    ):
        pass
    assert "\n" not in str(raised.value)


def test_a_worker_that_sees_other_folders_says_so(tmp_path):
    from paragonsr2.cluster.worker import Worker

    worker = Worker(Recipe("magic", 2, {}))
    task = Task(tmp_path / "a.png", tmp_path / "out" / "a.png")
    with probe(task) as (path, token):
        assert worker.facts(path, "another").args[0].endswith("--ray-transfer")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("paragonsr2.cluster.worker._node", lambda: "here")
            assert worker.facts(path, token).engine.engine == "numpy CPU fp32"
    assert list(task.target.parent.iterdir()) == []
    worker.leave()


def test_a_model_that_cannot_be_used_is_told_by_the_workers():
    from paragonsr2.cluster.worker import Worker

    worker = Worker(Recipe("no-such-model", 2, {}))
    assert isinstance(worker.facts(), ParagonError)
    worker.leave()


def test_workers_must_be_alike():
    engine = EngineFacts("realtime", 2, "onnxruntime CPU fp32", 768, True, "abc")
    one = WorkerFacts("1", engine, "off", host="a")
    other = EngineFacts("realtime", 2, "onnxruntime CPU fp32", 512, True, "abc")
    assert pools._difference(one, WorkerFacts("1", other, "off", host="b")) is None
    for changed, words in [
        (WorkerFacts("2", engine, "off", host="b"), "a has 1, and b 2"),
        (WorkerFacts("1", engine, "OpenCV", host="b"), "b OpenCV"),
        (WorkerFacts("1", EngineFacts("x", 2, "cuda", 768, True, "abc"), "off", host="b"), "cuda"),
        (
            WorkerFacts("1", EngineFacts("x", 2, engine.engine, 768, True, "d"), "off", host="b"),
            "model files",
        ),
    ]:
        assert words in pools._difference(one, changed)


def test_no_room_for_a_worker_is_an_error():
    class Ray:
        @staticmethod
        def nodes():
            return [{"Alive": True, "Resources": {"CPU": 3.0, "GPU": 1.0}},
                    {"Alive": False, "Resources": {"CPU": 64.0}}]  # fmt: skip

    assert pools._room(Ray, PoolOptions(cpus=1)) == 3
    assert pools._room(Ray, PoolOptions(cpus=1, gpus=0.5)) == 2
    with pytest.raises(ClusterError, match="4 CPU"):
        pools._room(Ray, PoolOptions(cpus=4))


def test_what_workers_cannot_import_is_named():
    missing = ray.exceptions.RayActorError(error_msg="ModuleNotFoundError: No module named 'x'")
    assert "install" in str(pools._cannot_start(missing))
    assert "kaput" in str(pools._cannot_start(ray.exceptions.RayActorError(error_msg="a\nkaput")))


def test_every_error_crosses_processes():
    made = [
        errors.MissingExtraError("a cluster", "cluster"),
        errors.RefusedError(503, "later", 7),
        errors.ImageError("bad"),
    ]
    for error in made:
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_strict_and_overwrite_reach_the_workers(pool, folder, tmp_path):
    source = tmp_path / "cut.jpg"
    whole = (folder / "01.jpg").read_bytes()
    source.write_bytes(whole[: len(whole) * 3 // 4])
    task = Task(source, tmp_path / "out.jpg")
    (mild,) = run(pool, [task])
    (strict,) = run(pool, [task], pictures=PictureOptions(strict=True, overwrite=True))
    assert strict.status == "failed"
    assert mild.status in ("done", "failed")
