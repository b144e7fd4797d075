"""Load the HTTP service at a multiple of its capacity; check every answer, its time and the memory.

Writes ``results/robustness/service_load.json``. First, as many clients as the service has workers
ask one after the other, which gives its capacity. Then requests arrive at a multiple of that rate,
whether or not earlier ones were answered. Every answer must be the picture that the command makes,
to the byte, or 429 with ``Retry-After``. Client and service share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import psutil
import pyvips

from paragonsr2.measure.machine import write_result
from paragonsr2.serve.limits import Limits
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "robustness" / "service_load.json"
PHOTO = ROOT / "examples" / "houses.png"
SIZES = ((96, 64), (160, 120), (320, 240))

#: What ``--max-seconds`` promises: an accepted picture is answered within this time.
BOUND = 10.0


@dataclass(frozen=True)
class Wish:
    """A request and its one right answer."""

    content: bytes
    expected: bytes


@dataclass
class Seen:
    """What the clients saw.

    Attributes:
        answers: number of answers by what they were.
        seconds: of every accepted request.
        rss: pairs of seconds since the start and resident bytes of the service.
    """

    answers: Counter[str] = field(default_factory=Counter[str])
    seconds: list[float] = field(default_factory=list[float])
    rss: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])


def make_wishes(folder: Path) -> list[Wish]:
    """Crops of a photograph, and what the command makes of them."""
    photo = cast(Any, pyvips.Image).new_from_file(str(PHOTO))
    upscaler, wishes = Upscaler("realtime", 2), list[Wish]()
    for number, (width, height) in enumerate(SIZES):
        source, target = folder / f"{number}.png", folder / f"{number}_x2.png"
        photo.crop(20 * number, 20 * number, width, height).write_to_file(str(source))
        outcome = run_task(Task(source, target), upscaler)
        if outcome.error is not None:
            raise outcome.error
        wishes.append(Wish(source.read_bytes(), target.read_bytes()))
    return wishes


async def ask(client: httpx.AsyncClient, wish: Wish, seen: Seen) -> None:
    """Send one request and judge its answer."""
    started = time.perf_counter()
    try:
        answer = await client.post("/v1/upscale", content=wish.content)
    except httpx.HTTPError as error:
        seen.answers[type(error).__name__] += 1
        return
    if answer.status_code == 200:
        seen.seconds.append(time.perf_counter() - started)
        seen.answers["right" if answer.content == wish.expected else "wrong"] += 1
    elif answer.status_code == 429 and answer.headers.get("retry-after", "").isdigit():
        seen.answers["refused"] += 1
    else:
        seen.answers[f"status {answer.status_code}"] += 1


async def capacity(client: httpx.AsyncClient, wishes: list[Wish], clients: int) -> float:
    """Answers per second when ``clients`` ask one after the other."""
    seen, end = Seen(), time.perf_counter() + 15

    async def keep_asking(number: int) -> None:
        while time.perf_counter() < end:
            number += 1
            await ask(client, wishes[number % len(wishes)], seen)

    started = time.perf_counter()
    await asyncio.gather(*(keep_asking(number) for number in range(clients)))
    if set(seen.answers) != {"right"}:
        raise SystemExit(f"without load, the answers are {dict(seen.answers)}")
    return seen.answers["right"] / (time.perf_counter() - started)


async def overload(
    client: httpx.AsyncClient,
    wishes: list[Wish],
    rate: float,
    seconds: float,
    service: psutil.Process,
) -> Seen:
    """Send ``rate`` requests a second, whatever becomes of them."""
    seen, rng, tasks = Seen(), random.Random(17), set[asyncio.Task[None]]()
    started = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(ask(client, rng.choice(wishes), seen))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if number % max(1, int(rate)) == 0:
            seen.rss.append((time.perf_counter() - started, service.memory_info().rss))
    await asyncio.gather(*tasks)
    return seen


def judge(seen: Seen, spent: float, slots: int) -> dict[str, Any]:
    """Times and memory as the result file has them."""
    times = np.array(seen.seconds)
    accepted = len(times) / spent
    # At first, engines and allocators fill their pools.
    settled = np.array(seen.rss[len(seen.rss) // 4 :])
    slope = np.polyfit(settled[:, 0], settled[:, 1], 1)[0] * 60 / 2**20
    return {
        "accepted_per_second": round(accepted, 2),
        "seconds_p50_p95_p99_max": [
            round(float(value), 3) for value in (*np.percentile(times, (50, 95, 99)), times.max())
        ],
        "bound_seconds": BOUND,
        "full_queue_seconds": round(slots / accepted, 3),
        "rss_mib_by_eighths": [
            round(float(part[:, 1].mean()) / 2**20, 1)
            for part in np.array_split(np.array(seen.rss), 8)
        ],
        "rss_slope_mib_per_minute": round(float(slope), 3),
    }


async def attack(url: str, wishes: list[Wish], pid: int, options: argparse.Namespace) -> Any:
    """Measure the capacity, then exceed it."""
    limits, service = Limits(), psutil.Process(pid)
    connections = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    async with httpx.AsyncClient(base_url=url, limits=connections, timeout=120) as client:
        able = await capacity(client, wishes, limits.workers)
        started = time.perf_counter()
        seen = await overload(client, wishes, options.times * able, options.seconds, service)
        spent = time.perf_counter() - started
        metrics = (await client.get("/metrics")).text
    return {
        "pictures": [list(size) for size in SIZES],
        "model": "realtime x2",
        "workers": limits.workers,
        "waiting": limits.waiting,
        "capacity_per_second": round(able, 2),
        "times_capacity": options.times,
        "seconds": round(spent, 1),
        "requests": seen.answers.total(),
        "answers": dict(seen.answers),
        **judge(seen, spent, limits.workers + limits.waiting),
        "tiles_per_call": tiles_per_call(metrics),
    }


def tiles_per_call(metrics: str) -> float:
    """Mean number of tiles in one call of the engine."""
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line[:1] != "#")
    name = "paragonsr2_tiles_together"
    return round(float(values[f"{name}_sum"]) / float(values[f"{name}_count"]), 2)


def problems(result: Mapping[str, Any]) -> list[str]:
    """What breaks a promise."""
    found = [
        f"{count} answers: {kind}"
        for kind, count in result["answers"].items()
        if kind not in ("right", "refused")
    ]
    if result["seconds_p50_p95_p99_max"][2] > result["bound_seconds"]:
        found.append("the 99th percentile exceeds the bound")
    if result["files_left"]:
        found.append(f"{result['files_left']} files are left")
    if result["exit_code"]:
        found.append(f"the service ended with {result['exit_code']}")
    return found


def main() -> None:
    """Start the service, load it, stop it, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--times", type=float, default=4.0)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wishes, state = make_wishes(folder), folder / "service"
        command = [
            sys.executable, "-m", "paragonsr2", "serve", "--port", "0", "--folder", str(state),
            "--max-seconds", str(BOUND),
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert service.stdout is not None  # it is a pipe
        url = next(word for word in service.stdout.readline().split() if word.startswith("http"))
        try:
            result = asyncio.run(attack(url, wishes, service.pid, options))
        finally:
            service.terminate()
        result["exit_code"] = service.wait(120)
        result["files_left"] = sum(path.is_file() for path in (state / "files").rglob("*"))
    print(json.dumps(result, indent=1))
    write_result(options.result, result)
    if broken := problems(result):
        raise SystemExit("; ".join(broken))


if __name__ == "__main__":
    main()
