"""Jobs on a simulated Ray cluster: nodes killed at random, overhead over one machine, memory.

::

    python -m benchmark.cluster kills              # results/cluster/kills.json
    python -m benchmark.cluster overhead PHOTOS    # results/cluster/overhead.json
    python -m benchmark.cluster memory             # results/cluster/memory.json
    python -m benchmark.cluster costs PHOTOS       # results/cluster/costs.json

``kills`` runs 60 pictures and a clip of 300 frames on two nodes, kills one of them at random
moments and starts another in its place. After each kill every result that is there must be whole,
and in the end all must have the bytes of an undisturbed run on one machine.

``overhead`` measures the same job with the same number of cores by one process and on a cluster,
in turn, after a warm-up; the medians over the rounds are reported. Ray's own processes use the same
cores.

``memory`` watches the driver of a job of 2,000 files. ``costs`` measures what a megapixel of a
photo and of a film takes of a processor, without Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil

from benchmark.folder_overlap import HEIGHT, WIDTH, cut_photos
from paragonsr2.arrays.pixels import Pixels8
from paragonsr2.clips.clip import probe
from paragonsr2.clips.frames import read_frames
from paragonsr2.cluster.connect import connected
from paragonsr2.cluster.job import JobOptions, run_on_cluster
from paragonsr2.cluster.orders import Recipe
from paragonsr2.cluster.pool import Pool
from paragonsr2.files import is_temporary
from paragonsr2.images.header import Picture
from paragonsr2.images.reading import read_picture
from paragonsr2.images.writing import write_picture
from paragonsr2.measure.machine import write_result
from paragonsr2.upscale.job import run_tasks
from paragonsr2.upscale.naming import plan_tasks
from paragonsr2.upscale.resources import cores
from paragonsr2.upscale.task import Outcome, Task
from paragonsr2.upscale.upscaler import Upscaler, UpscalerOptions
from paragonsr2.upscale.video import VideoOptions

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from clips import make_clip, regular  # noqa: E402

RESULTS = ROOT / "results" / "cluster"
OPTIONS: UpscalerOptions = {"device": "cpu", "tile": 256}
CLIPS = VideoOptions(segment=20, preset="ultrafast")
#: Largest overhead over one process on the same cores.
_MOST_OVER = 1.15

KINDS = (".png", ".jpg", ".webp", ".tif")


class Nodes:
    """A head without cores, and nodes of one core each.

    Args:
        cluster: of Ray.
        number: of nodes.
    """

    def __init__(self, cluster: Any, number: int) -> None:
        self._cluster = cluster
        self._nodes = [self._add() for _ in range(number)]

    def _add(self) -> Any:
        for _ in range(4):
            # A busy machine may not start one within the 30 seconds that Ray allows.
            with suppress(Exception):
                return self._cluster.add_node(num_cpus=1)
        raise SystemExit("Ray starts no node here; is the machine very busy?")

    def kill(self, index: int) -> None:
        """Kill a node and start another."""
        self._cluster.remove_node(self._nodes.pop(index), allow_graceful=False)
        self._nodes.append(self._add())


@contextmanager
def simulated(nodes: int) -> Generator[tuple[Nodes, Pool]]:
    """A cluster of ``nodes`` nodes of one core, with a worker on each."""
    from ray.cluster_utils import Cluster

    # Ray's workers are nice to other programs unless told otherwise; one process here is not.
    os.environ.setdefault("RAY_worker_niceness", "0")
    head = {"num_cpus": 0, "include_dashboard": False}
    made: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        members = Nodes(made, nodes)
        with connected(made.address) as ray, closing(_pool(ray)) as pool:
            yield members, pool
    finally:
        made.shutdown()


def _pool(ray: Any) -> Pool:
    return Pool(ray, Recipe("realtime", 2, OPTIONS))


def make_folder(folder: Path, pictures: int, side: int, frames: int) -> None:
    """Write pictures of noise and smooth parts, and a clip if it is to have frames."""
    rng = np.random.default_rng(1)
    for number in range(pictures):
        coarse = rng.integers(0, 255, (side // 8 + 1, side // 8 + 1, 3), np.uint8)
        pixels = coarse.repeat(8, axis=0).repeat(8, axis=1)[:side, : side + number % 7]
        write_picture(
            folder / f"{number:04d}{KINDS[number % 4]}", Picture(np.ascontiguousarray(pixels))
        )
    if frames:
        make_clip(folder / "clip.mkv", regular(frames), sounds=1, size=(96, 64))


def content(folder: Path) -> dict[str, bytes]:
    """The finished files of a folder."""
    return {p.name: p.read_bytes() for p in folder.glob("*") if p.is_file() and not is_temporary(p)}


@dataclass
class Kills:
    """Kills nodes under jobs, and looks at what that leaves.

    Attributes:
        nodes: to kill.
        rng: chooses node and moment.
        usual: seconds of an undisturbed job, the longest time between two kills.
        wanted: content of the results.
        left: kills that are still to come.
        moments: share of a job's files that were done at each kill.
        wrong: files that were partial or different at any time.
    """

    nodes: Nodes
    rng: random.Random
    usual: float
    wanted: dict[str, bytes]
    left: int
    moments: list[float] = field(default_factory=list[float])
    wrong: list[str] = field(default_factory=list[str])

    def run(self, tasks: Sequence[Task], pool: Pool, out: Path) -> list[Outcome]:
        """Do a job under which nodes die."""
        outcomes: list[Outcome] = []

        def work() -> None:
            for outcome in run_on_cluster(tasks, pool, JobOptions(clips=CLIPS)):
                outcomes.append(outcome)  # noqa: PERF402 - it is read meanwhile

        # Ray starts nodes from the main thread only.
        with ThreadPoolExecutor(1) as thread:
            job = thread.submit(work)
            while self.left and not wait([job], self.rng.uniform(0, self.usual)).done:
                self.nodes.kill(self.rng.randrange(2))
                self.left -= 1
                self.moments.append(round(len(outcomes) / len(tasks), 3))
                self.look(out)
                print(f"{self.left} kills left, {len(outcomes)} files done", flush=True)
            job.result()
        self.look(out)
        return outcomes

    def look(self, out: Path) -> None:
        """Compare the finished files."""
        found = content(out)
        self.wrong += [name for name, have in found.items() if have != self.wanted.get(name)]


def kill_nodes(kills: int, seed: int) -> dict[str, object]:
    """Kill nodes until there were ``kills`` kills."""
    lost: list[str] = []
    jobs = 0
    with tempfile.TemporaryDirectory() as name, simulated(2) as (nodes, pool):
        source = Path(name, "in")
        source.mkdir()
        make_folder(source, 60, 200, 300)
        peace = Path(name, "peace")
        tasks = plan_tasks([str(source)], peace, 2)
        started = time.perf_counter()
        done_here = list(run_tasks(tasks, Upscaler("realtime", 2, **OPTIONS), video=CLIPS))
        usual = time.perf_counter() - started
        killing = Kills(nodes, random.Random(seed), usual, content(peace), kills)
        while killing.left:
            jobs += 1
            out = Path(name, f"out{jobs}")
            tasks = plan_tasks([str(source)], out, 2)
            outcomes = killing.run(tasks, pool, out)
            lost += set(killing.wanted) - set(content(out))
            lost += [str(one.source) for one in outcomes if one.status != "done"]
            if [one.source for one in outcomes] != [one.source for one in done_here]:
                raise SystemExit("a job has other outcomes")
    return {
        "what": "a node killed at random moments of a job of 60 pictures and a clip of 300 frames",
        "nodes": 2,
        "kills": kills,
        "jobs": jobs,
        "share_of_files_done_at_each_kill": killing.moments,
        "files_lost_or_failed": len(lost),
        "partial_or_different_files": len(killing.wrong),
    }


def _processor_seconds() -> float:
    """Of this process and all that it has started and that live."""
    me = psutil.Process()
    spent = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent += times.user + times.system
    return spent


def measure_overhead(sources: Path, photos: int, rounds: int) -> dict[str, object]:
    """Measure jobs here and on a cluster of as many workers as there are cores, in turn."""
    upscaler = Upscaler("realtime", 2, **OPTIONS)
    clips = VideoOptions(segment=60, preset="ultrafast")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, simulated(cores()) as (_, pool):
        start = time.perf_counter() - started
        source = Path(name, "photos")
        source.mkdir()
        cut_photos(sources, source, photos, ".jpg")
        make_clip(Path(name, "clip.mkv"), regular(300), size=(192, 108))
        jobs = {
            "photos": plan_tasks([str(source)], Path(name, "out"), 2),
            "clip": [Task(Path(name, "clip.mkv"), Path(name, "out.mkv"))],
        }
        ways: dict[str, Callable[[Sequence[Task]], Iterator[Outcome]]] = {
            "here": lambda tasks: run_tasks(tasks, upscaler, video=clips),
            "cluster": lambda tasks: run_on_cluster(tasks, pool, JobOptions(clips=clips)),
            "cluster, bytes sent": lambda tasks: run_on_cluster(
                tasks, pool, JobOptions(clips=clips, transfer=True)
            ),
        }
        wall: dict[str, dict[str, list[float]]] = {job: {way: [] for way in ways} for job in jobs}
        spent: dict[str, dict[str, list[float]]] = {job: {way: [] for way in ways} for job in jobs}
        for number in range(rounds + 1):
            for job, tasks in jobs.items():
                contents: list[list[bytes]] = []
                for way, work in ways.items():
                    begun, used = time.perf_counter(), _processor_seconds()
                    outcomes = list(work(tasks))
                    if any(one.status != "done" for one in outcomes):
                        raise SystemExit(f"{job}, {way}: {outcomes}")
                    if number:  # the first round is the warm-up
                        wall[job][way].append(time.perf_counter() - begun)
                        spent[job][way].append(_processor_seconds() - used)
                    contents.append([task.target.read_bytes() for task in tasks])
                    for task in tasks:
                        task.target.unlink()
                if any(one != contents[0] for one in contents):
                    raise SystemExit(f"{job}: the cluster gives other bytes")
                print(
                    number, job, {way: times[-1:] for way, times in wall[job].items()}, flush=True
                )

    def medians(times: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
        return {
            job: {way: round(float(np.median(values)), 3) for way, values in ways.items()}
            for job, ways in times.items()
        }

    def ratios(times: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
        """The median over the rounds of each way's time over that of one machine."""
        return {
            job: {
                way: round(float(np.median(np.array(values) / np.array(of["here"]))), 4)
                for way, values in of.items()
                if way != "here"
            }
            for job, of in times.items()
        }

    return {
        "what": f"{photos} photos of 640x480 and a clip of 300 frames of 192x108, realtime x2, "
        "here and on a cluster of as many workers of one core, same bytes",
        "cores": cores(),
        "rounds": rounds,
        "load_of_the_machine": round(os.getloadavg()[1], 2),
        "seconds": medians(wall),
        "over_here": ratios(wall),
        "processor_seconds": medians(spent),
        "processor_over_here": ratios(spent),
        "seconds_to_start_the_cluster_and_its_workers": round(start, 1),
    }


def watch_memory(files: int) -> dict[str, object]:
    """Memory of the driver, which no other process shares, while files are finished."""
    me = psutil.Process()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, simulated(1) as (_, pool):
        source = Path(name, "in")
        source.mkdir()
        make_folder(source, files, 64, 0)
        for way, transfer in (("shared paths", False), ("bytes sent", True)):
            tasks = plan_tasks([str(source)], Path(name, way), 2)
            marks = {files * share // 100: share for share in (1, 10, 25, 50, 75, 100)}
            at: dict[str, float] = {}
            running = run_on_cluster(tasks, pool, JobOptions(transfer=transfer))
            for number, outcome in enumerate(running, 1):
                if outcome.status != "done":
                    raise SystemExit(outcome.message)
                if number in marks:
                    at[str(number)] = round(me.memory_full_info().uss / 2**20, 1)
                    print(way, number, at[str(number)], flush=True)
            found[way] = at
    return {
        "what": f"memory of the driver of a job of {files} files, after so many of them",
        "files": files,
        "MiB": found,
    }


def mosaic(sources: Path, folder: Path, height: int, width: int) -> Pixels8:
    """A picture of natural content of any size, put together of crops of photos."""
    across, down = -(-width // WIDTH), -(-height // HEIGHT)
    crops = [read_picture(p).pixels for p in cut_photos(sources, folder, across * down, ".png")]
    rows = [np.concatenate(crops[n * across : (n + 1) * across], axis=1) for n in range(down)]
    whole: Any = np.ascontiguousarray(np.concatenate(rows)[:height, :width])
    return whole


def measure_costs(sources: Path, frames: int) -> dict[str, object]:
    """Processor seconds for each megapixel of the input: of the network, photos and a film."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo, film = folder / "photo.jpg", folder / "film.mp4"
        content = mosaic(sources, folder, 1500, 2000)
        write_picture(photo, Picture(content))
        deep = content.astype(np.uint16) * 257

        def pan(index: int, width: int, height: int) -> Any:
            return deep[3 * index : 3 * index + height, 3 * index : 3 * index + width]

        make_clip(film, regular(frames), size=(1920, 1080), pictures=pan, options={"crf": "18"})
        network: dict[str, float] = {}
        for model, calls in (("photo", 1), ("stream", 2), ("realtime", 8)):
            upscaler = Upscaler(model, 2, device="cpu")
            upscaler(content[:64, :64])  # warm-up
            _, seconds = _processor_time(_repeat, calls, upscaler, content[:360, :640])
            network[model] = round(seconds / calls / 0.2304, 3)
            print(model, network[model], flush=True)
        photo_task = Task(photo, folder / "large.jpg")
        _, of_photo = _processor_time(run_tasks, [photo_task], upscaler)
        film_task = Task(film, folder / "large.mp4")
        _, of_film = _processor_time(run_tasks, [film_task], upscaler)
        _, of_decoding = _processor_time(read_decoded, film)
        size_of_photo = photo_task.target.stat().st_size / 1e6 / 3
        size_of_film = film_task.target.stat().st_size / 1e6
    pixels = {"photo": 3.0, "film": 2.0736 * frames}
    spent = {"photo": of_photo / pixels["photo"], "film": of_film / pixels["film"]}
    return {
        "what": f"x2 on the CPU by one process: a photo of 2000x1500 and {frames} frames of "
        "H.264 of 1920x1080, realtime, with the usual options, frames steadied",
        "cores": cores(),
        "load_of_the_machine": round(os.getloadavg()[1], 2),
        "processor_seconds_a_megapixel": {
            "network": network,
            **{kind: round(seconds, 3) for kind, seconds in spent.items()},
            "decoding": round(of_decoding / pixels["film"], 4),
        },
        "over_the_network": {
            kind: round(seconds / network["realtime"], 3) for kind, seconds in spent.items()
        },
        "decoding_over_the_network": round(of_decoding / pixels["film"] / network["realtime"], 4),
        "megabytes_of_the_result": {
            "a_megapixel_of_photo": round(size_of_photo, 2),
            "a_frame_of_film": round(size_of_film / frames, 3),
        },
    }


def read_decoded(film: Path) -> int:
    """Decode a film as each worker on it does; return the number of frames."""
    clip = probe(film)
    # Frames before the first one wanted are only decoded.
    list(read_frames(clip, start=sys.maxsize))
    return clip.frames


def _repeat(calls: int, upscaler: Upscaler, frame: Pixels8) -> None:
    for _ in range(calls):
        upscaler(frame)


def _processor_time(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    begun = time.process_time()
    found = work(*arguments)
    if isinstance(found, Iterator):
        found = list(cast(Iterator[Any], found))
    return found, time.process_time() - begun


def main() -> None:
    """Run one of the programs and write its result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=("kills", "overhead", "memory", "costs"))
    parser.add_argument(
        "sources", type=Path, nargs="?", help="folder of photos, for overhead and costs"
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=24, help="of the film, for costs")
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    if options.program == "kills":
        result = kill_nodes(options.kills, options.seed)
        good = not result["files_lost_or_failed"] and not result["partial_or_different_files"]
    elif options.program in ("overhead", "costs") and options.sources is None:
        parser.error(f"{options.program} needs a folder of photos")
    elif options.program == "costs":
        result, good = measure_costs(options.sources, options.frames), True
    elif options.program == "overhead":
        result = measure_overhead(options.sources, options.photos, options.rounds)
        over = cast(dict[str, dict[str, float]], result["processor_over_here"])
        good = max(ratio for ways in over.values() for ratio in ways.values()) <= _MOST_OVER
    else:
        result, good = watch_memory(options.files), True
    print(json.dumps(result, indent=1))
    write_result(options.result or RESULTS / f"{options.program}.json", result)
    if not good:
        raise SystemExit("results were lost, partial or different, or the overhead is too large")


if __name__ == "__main__":
    main()
