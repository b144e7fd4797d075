"""The page's server: what it lets in, how much, and what it leaves behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from paragonsr2.app.limits import Limits
from paragonsr2.app.page_files import PageFiles, harmless_name, remove_leftovers
from paragonsr2.app.preview import make_preview
from paragonsr2.app.workshop import Workshop
from PIL import Image

from clips import irregular, make_clip
from conftest import photo_like
from paragonsr2.cli.main import main
from paragonsr2.errors import ImageTooLargeError, InputError, OptionError, OutputError, ParagonError
from paragonsr2.serve.choice import Choice
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler

# --- files ------------------------------------------------------------------------------------


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def make_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with contextlib.ExitStack() as stack:

        def make(clock=None, **limits):
            files = PageFiles(Limits(**limits), clock or Clock())
            stack.callback(files.close)
            return files

        yield make


def put(files, content=b"x", name="a.png", owner=""):
    with files.write(name, ".png", len(content), owner) as item:
        item.path.write_bytes(content)
    return item


HOSTILE_NAMES = [
    "../../../../etc/cron.d/x.png", "..\\..\\windows\\x.png", "/etc/passwd.png", "C:\\x.png",
    "....//....//x.png", "x.png/../../y.png", "%2e%2e%2fx.png", "..%c0%afx.png", ".png", "..png",
    "a\x00b.png", "a\r\nSet-Cookie: x.png", "\u202egnp.exe.png", "x" * 3000 + ".png", "CON.png",
    "~/x.png", "$(touch y).png", "`id`.png", "-rf.png", "<img src=x onerror=alert(1)>.png",
    "'; DROP TABLE x.png", "x.PnG", " x .png ", "日本.png", "e\u0301.png", "a/b/c.png",
    "file:x.png",
    "http://127.0.0.1/x.png", "x.png?y=.png", "\ufeff.png",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_is_one_plain_part_and_never_the_path(make_files, name):
    files = make_files()
    item = put(files, name=name)
    assert 0 < len(harmless_name(name)) <= 101
    assert not set(item.name) & set('/\\\0\r\n\u202e<>:"|?*')
    assert item.path.parent.parent == files.root
    assert item.path.name == "file.png"


def test_what_is_not_used_for_long_goes_and_what_is_in_use_stays(make_files):
    clock = Clock()
    files = make_files(clock, keep_seconds=10)
    old, held = put(files), put(files)
    with files.use(held.token):
        clock.now = 11
        files.sweep()
        assert not old.path.exists()
        assert held.path.exists()
        with pytest.raises(InputError, match="drop it again"):
            files.get(old.token)
    files.sweep()
    assert held.path.exists(), "it was used just now"


def test_the_oldest_idle_files_make_room_and_the_bound_holds(make_files):
    clock = Clock()
    files = make_files(clock, disk_bytes=3000)
    items = []
    for number in range(6):
        clock.now = number
        items.append(put(files, b"x" * 1000))
        assert files.used() <= 3000
    assert [item.path.exists() for item in items] == [False] * 3 + [True] * 3
    with (
        files.use(items[-1].token),
        pytest.raises(OutputError, match="no room"),
        files.write("b.png", ".png", 2500),
    ):
        pytest.fail("there was no room")


def test_a_visitor_who_leaves_takes_only_his_own_files_along(make_files):
    files = make_files()
    mine, other = put(files, owner="me"), put(files, owner="you")
    files.release("me")
    assert not mine.path.exists()
    assert other.path.exists()


def test_a_file_that_fails_while_written_is_removed(make_files):
    files = make_files()
    with contextlib.suppress(ZeroDivisionError), files.write("a.png", ".png", 1) as item:
        item.path.write_bytes(b"x")
        raise ZeroDivisionError
    assert not item.path.parent.exists()
    files.close()
    assert not files.root.exists()


def test_folders_of_killed_servers_are_removed_and_others_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = tmp_path / f"paragonsr2-app-{dead.pid}-x"
    stay = [tmp_path / f"paragonsr2-app-{os.getpid()}-x", tmp_path / "paragonsr2-app-y-x"]
    for folder in (gone, *stay):
        folder.mkdir()
    remove_leftovers()
    assert not gone.exists()
    assert all(folder.exists() for folder in stay)


# --- jobs -------------------------------------------------------------------------------------


@pytest.fixture
def make_workshop(make_files):
    with contextlib.ExitStack() as stack:

        def make(**limits):
            workshop = Workshop(make_files(**limits))
            stack.callback(workshop.close)
            return workshop

        yield make


def picture(kind="PNG", height=24, width=32):
    buffer = io.BytesIO()
    Image.fromarray(photo_like(height, width)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(("image_format", "suffix"), [("keep", ".png"), ("webp", ".webp")])
def test_a_result_is_what_the_command_makes_of_the_file(
    make_workshop, tmp_path, image_format, suffix
):
    workshop = make_workshop()
    upload = put(workshop.files, picture(), "my photo.png")
    result = workshop.start(upload.token, Choice("realtime", 2, image_format)).future.result()
    source = tmp_path / "in.png"
    source.write_bytes(picture())
    target = tmp_path / f"out{suffix}"
    run_task(Task(source, target), Upscaler("realtime", 2))
    assert result.item.path.read_bytes() == target.read_bytes()
    assert result.item.name == f"my photo_x2{suffix}"
    assert (result.before.width, result.after.width, result.after.height) == (32, 64, 48)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_an_animation_counts_all_its_frames(make_workshop, kind):
    frames = [Image.fromarray(photo_like(24, 32, seed=seed)) for seed in range(3)]
    moving = io.BytesIO()
    frames[0].save(moving, kind, save_all=True, append_images=frames[1:], duration=40)
    workshop = make_workshop()
    upload = put(workshop.files, moving.getvalue(), f"moving.{kind.lower()}")
    result = workshop.start(upload.token, Choice("bicubic", 2)).future.result()
    assert (result.before.pages, result.after.pages) == (3, 3)
    with pytest.raises(ImageTooLargeError):
        make_preview(upload.path, upload.shown, max_pixels=32 * 24 * 3 - 1)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mkv"
    make_clip(path, irregular(30), sounds=1)
    return path


def test_a_clip_becomes_what_the_command_makes_of_it(make_workshop, clip, tmp_path):
    workshop = make_workshop()
    with workshop.files.write("my clip.mkv", ".mkv", 0) as upload:
        shutil.copy2(clip, upload.path)
    result = workshop.start(upload.token, Choice("realtime", 2)).future.result()
    target = tmp_path / "out.mkv"
    run_task(Task(clip, target), Upscaler("realtime", 2))
    assert result.item.path.read_bytes() == target.read_bytes()
    assert result.item.name == "my clip_x2.mkv"
    assert (result.after.width, result.after.height, result.after.frames) == (128, 72, 30)
    with Image.open(upload.shown) as before, Image.open(result.item.shown) as after:
        assert (before.size, after.size) == ((64, 36), (128, 72))
        small = np.asarray(after.resize(before.size), dtype=float)
        assert np.abs(small - np.asarray(before, dtype=float)).mean() < 8, "the same frame"


@pytest.mark.parametrize("limits", [{"job_seconds": 0}, {"disk_bytes": 64_000}])
def test_a_clip_that_takes_too_much_ends_without_a_trace(make_workshop, clip, limits):
    workshop = make_workshop(**limits)
    with workshop.files.write("clip.mkv", ".mkv", 0) as upload:
        shutil.copy2(clip, upload.path)
    job = workshop.start(upload.token, Choice("bicubic", 2))
    with pytest.raises(ParagonError, match="than the page allows"):
        job.future.result()
    assert len(list(workshop.files.root.iterdir())) == 1


def test_a_choice_that_is_not_offered_is_refused(make_workshop):
    workshop = make_workshop()
    for choice in (
        Choice("/etc/passwd.onnx", 2),
        Choice("realtime", 7),
        Choice("realtime", 2, "exe"),
    ):
        with pytest.raises(OptionError):
            workshop.start("x", choice)


def test_a_job_out_of_time_ends_and_leaves_only_its_input(make_workshop):
    workshop = make_workshop(job_seconds=-1)
    upload = put(workshop.files, picture())
    job = workshop.start(upload.token, Choice("bicubic", 2))
    with pytest.raises(Exception, match="longer than the page allows"):
        job.future.result()
    assert {p.name for p in workshop.files.root.rglob("file*")} == {"file.png"}
    assert len(list(workshop.files.root.iterdir())) == 1


def test_a_stopped_job_gives_no_result_and_the_next_one_runs(make_workshop):
    workshop = make_workshop()
    upload = put(workshop.files, picture())
    stopped = [workshop.start(upload.token, Choice("bicubic", 2)) for _ in range(5)]
    for job in stopped[1:]:
        job.stop()
    workshop.start(upload.token, Choice("bicubic", 2)).future.result()
    assert stopped[0].future.result()
    assert all(job.future.cancelled() for job in stopped[2:])
    assert len(list(workshop.files.root.iterdir())) <= 4


def test_a_result_that_would_be_too_large_is_refused_before_decoding(make_workshop):
    workshop = make_workshop(result_pixels=4 * 24 * 32)
    upload = put(workshop.files, picture())
    workshop.start(upload.token, Choice("bicubic", 2)).future.result()
    job = workshop.start(upload.token, Choice("bicubic", 3))
    with pytest.raises(InputError, match="megapixels"):
        job.future.result()


# --- the server -------------------------------------------------------------------------------


@dataclass
class Server:
    process: subprocess.Popen
    url: str
    folder: Path
    log: Path

    @property
    def root(self):
        (root,) = self.folder.glob("paragonsr2-app-*")
        return root


def start_server(folder, *options):
    """``paragonsr2 app`` in a process of its own, its temporary files in ``folder``."""
    log = folder / "log.txt"
    temporary = folder / "tmp"
    temporary.mkdir()
    with log.open("w") as messages:
        process = subprocess.Popen(
            [sys.executable, "-m", "paragonsr2", "app", "--port", "0", *options],
            env=os.environ | {"TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
        )
    line = process.stdout.readline()
    assert "http://" in line, log.read_text()
    url = next(word for word in line.split() if word.startswith("http"))
    return Server(process, url, temporary, log)


def stop_server(server, how=signal.SIGINT):
    server.process.send_signal(how)
    code = server.process.wait(30)
    server.process.stdout.close()
    return code


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = start_server(
        tmp_path_factory.mktemp("server"),
        *("--max-upload", "0.2", "--max-megapixels", "0.5", "--max-disk", "0.02"),
        *("--max-waiting", "200"),
    )
    yield running
    if running.process.poll() is None:
        stop_server(running)


class Visitor:
    """Does what the page's scripts do."""

    def __init__(self, server, number=0):
        self.http = httpx.Client(base_url=server.url, timeout=60, trust_env=False, verify=False)
        self.session = f"visitor{number}x{random.random()}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def upload(self, name, content):
        return self.http.post("/files", params={"name": name}, content=content)

    def functions(self):
        rows = self.http.get("/config").json()["dependencies"]
        return {row["targets"][0][1] + str(len(row["inputs"])): row["id"] for row in rows}

    def call(self, function, data):
        """Queue an event and give the last thing the page would show."""
        body = {"data": data, "fn_index": function, "session_hash": self.session}
        joined = self.http.post("/gradio_api/queue/join", json=body)
        if joined.status_code != 200:
            return joined.text
        shown = ""
        with self.http.stream(
            "GET", "/gradio_api/queue/data", params={"session_hash": self.session}
        ) as lines:
            for line in lines.iter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                output = message.get("output") or {}
                if output.get("data") and isinstance(output["data"][0], str):
                    shown = output["data"][0]
                if message["msg"] == "process_completed":
                    return shown or json.dumps(output)
                if message["msg"] == "close_stream":
                    return shown
        return shown


def png_that_claims(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(100_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def tiff_that_claims(width, height):
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, width * height % 2**32)]
    body = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags))
    for tag, value in tags:
        body += struct.pack("<HHII", tag, 4, 1, value)
    return body + bytes(4)


def hostile_uploads():
    """100 pairs of name and content that no one should send."""
    rng = random.Random(5)
    good = {kind: picture(kind, 40, 60) for kind in ("PNG", "JPEG", "WEBP", "TIFF")}
    pairs = [(name, good["PNG"]) for name in HOSTILE_NAMES]
    pairs += [
        (name, good["PNG"])
        for name in ("x.php", "x.exe", "x.svg", "x.pdf", "x.mat", "x.v", "x.csv", "x", "",
                     "x.png.sh", "x.html", "x.npy", "x.pth", "x.safetensors", "x.png\x00.txt")
    ]  # fmt: skip
    pairs += [
        ("x.png", content)
        for content in (
            b"", b"\0", b"\x89PNG\r\n\x1a\n", b"GIF89a",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"<html><script>alert(1)</script>", b"%PDF-1.4", b"PK\x03\x04", b"\x7fELF",
            b"#!/bin/sh\nid",
            b"P6 99999 99999 255\n", b"RIFF\xff\xff\xff\xffWEBPVP8L", b"\xff\xd8\xff\xd9",
            rng.randbytes(5000), rng.randbytes(150_000),
        )
    ]  # fmt: skip
    pairs += [(f"bad.{suffix}", rng.randbytes(3000)) for suffix in ("mp4", "mkv", "avi", "ts")]
    for kind, content in good.items():
        pairs += [
            (f"cut.{kind.lower()}", content[: len(content) * part // 5]) for part in (1, 2, 3, 4)
        ]
        flipped = bytearray(content)
        for place in rng.sample(range(20, len(content)), 12):
            flipped[place] ^= 0xFF
        pairs.append((f"flipped.{kind.lower()}", bytes(flipped)))
    pairs += [
        (f"bomb{side}.png", png_that_claims(side, side)) for side in (5000, 30_000, 2**31 - 1)
    ]
    pairs += [(f"bomb{side}.tif", tiff_that_claims(side, side)) for side in (5000, 60_000, 2**31)]
    pairs += [(f"large{n}.png", bytes(200_001 + n)) for n in range(5)]
    pairs += [(f"endless{n}.png", None) for n in range(9)]
    return pairs


def endless():
    for _ in range(100):
        yield bytes(10_000)


def test_a_hundred_hostile_uploads_change_nothing_but_the_private_folder(server):
    uploads = hostile_uploads()
    assert len(uploads) >= 100
    with Visitor(server) as visitor:
        functions = visitor.functions()
    largest = 0

    def send(number):
        nonlocal largest
        name, content = uploads[number]
        with Visitor(server, number) as visitor:
            answer = visitor.upload(name, endless() if content is None else content)
            largest = max(largest, sum(size_of(p) for p in files_of(server)))
            if answer.status_code != 200:
                return answer.status_code, answer.text
            token = answer.json()["token"]
            shown = visitor.call(functions["upload1"], [token])
            if 'role="alert"' in shown:
                return "refused", shown
            data = [token, "bicubic", 2, "keep"]
            return "enlarged", visitor.call(functions["click4"], data)

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(send, range(len(uploads))))

    for (name, content), (status, text) in zip(uploads, ends, strict=True):
        assert status in (413, 422, "refused", "enlarged"), (name, status, text)
        assert "Traceback" not in text
        assert str(server.folder) not in text
        if content is None or len(content) > 200_000:
            assert status == 413, name
        if name.startswith(("bomb", "cut.png", "cut.jpeg", "cut.webp")):
            assert status == "refused", (name, text)
    assert largest <= 20_000_000
    assert [p.name for p in server.folder.iterdir()] == [server.root.name]
    names = {p.name.rpartition(".")[0] for p in files_of(server)}
    assert names <= {"file", "shown"}
    assert "Traceback" not in server.log.read_text()
    assert still_works(server)


def files_of(server):
    return [Path(folder, name) for folder, _, names in os.walk(server.root) for name in names]


def size_of(path):
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def still_works(server):
    with Visitor(server) as visitor:
        token = visitor.upload("a.png", picture()).json()["token"]
        shown = visitor.call(visitor.functions()["click4"], [token, "realtime", 2, "keep"])
        return "64 × 48" in shown


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"host": "evil.example"}, "/", 421),
        ({"origin": "https://evil.example"}, "/", 403),
        ({"origin": "null"}, "/", 403),
        ({}, "/gradio_api/upload", 404),
        ({}, "/gradio_api/file=/etc/passwd", 404),
        ({}, "/gradio_api/proxy=http://example.com/", 404),
        ({}, "/gradio_api/call/enlarge", 404),
        ({}, "/monitoring", 404),
        ({}, "/files/..%2f..%2fetc%2fpasswd/shown", 404),
        ({}, "/page/..%2fserver.py", 404),
        ({}, "/web/..%2fsite.py", 404),
        ({}, "/web/unknown", 404),
        ({}, "/files/unknown/result", 404),
    ],
)
def test_nothing_but_the_page_answers(server, headers, path, status):
    answer = httpx.get(server.url + path, headers=headers, trust_env=False)
    assert answer.status_code == status


def test_the_page_allows_no_other_place(server):
    policy = httpx.get(server.url, trust_env=False).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_visitors_who_vanish_do_no_harm(server):
    host, port = server.url.removeprefix("http://").split(":")
    before = len(files_of(server))
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                f"POST /files?name=a.png HTTP/1.1\r\nHost: {host}:{port}\r\n"
                "Content-Length: 100000\r\n\r\nhalf".encode()
            )
    with Visitor(server) as visitor:
        token = visitor.upload("a.png", picture()).json()["token"]
        body = {
            "data": [token, "realtime", 2, "keep"],
            "fn_index": visitor.functions()["click4"],
            "session_hash": visitor.session,
        }
        for _ in range(5):
            visitor.http.post("/gradio_api/queue/join", json=body)
        query = {"session_hash": visitor.session}
        with visitor.http.stream("GET", "/gradio_api/queue/data", params=query) as lines:
            next(lines.iter_lines())
    assert still_works(server)
    assert len(files_of(server)) <= before + 2 + 4 + 10
    assert "Traceback" not in server.log.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_every_signal_to_end_removes_the_files(tmp_path, how, code):
    program = (
        "import paragonsr2.app.server as server, paragonsr2.cli.main as cli, sys\n"
        "def app(files, host):\n"
        "    with files.write('a.png', '.png', 1) as item: item.path.write_bytes(b'x')\n"
        "    async def nothing(scope, receive, send): await receive()\n"
        "    return nothing\n"
        "server.build_app = app\n"
        "sys.argv = ['paragonsr2', 'app', '--port', '0']\n"
        "cli.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert "http://127.0.0.1:" in process.stdout.readline()
    assert len(list(tmp_path.glob("*/*/file.png"))) == 1
    process.send_signal(how)
    assert process.wait(30) == code
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("sys.argv", ["paragonsr2", "app"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert 'pip install "paragonsr2[app]"' in capsys.readouterr().err


def test_a_taken_port_is_told(server, monkeypatch, capsys):
    port = server.url.rpartition(":")[2]
    monkeypatch.setattr("sys.argv", ["paragonsr2", "app", "--port", port])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--port" in capsys.readouterr().err


def test_it_listens_on_this_machine_alone(server):
    assert server.url.startswith("http://127.0.0.1:")


# --- in a browser -----------------------------------------------------------------------------

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright")
    with api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=program,
            args=FLAGS.split(),
            viewport={"width": 1280, "height": 900},
            accept_downloads=True,
        )
        yield context
        context.close()


@pytest.fixture
def tab(chromium, server):
    """The page, in a tab that notes what it asks for and what goes wrong in it."""
    page = chromium.new_page()
    page.set_default_timeout(60_000)
    page.asked, page.wrong = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda said: said.type == "error" and page.wrong.append(said.text))
    page.goto(server.url)
    page.wait_for_selector("paragon-drop .zone")
    yield page
    page.close()


def choose(page, path):
    with page.expect_file_chooser() as chooser:
        page.click("paragon-drop .zone")
    chooser.value.set_files(path)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a photo.png"
    path.write_bytes(picture("PNG", 160, 240))
    return path


def enlarge(page, path):
    choose(page, path)
    page.click("#go:enabled")
    page.wait_for_selector("#download")
    page.wait_for_function(f"{VIEWER}.after.naturalWidth > 0")


VIEWER = "document.querySelector('paragon-viewer')"


def wait_split(page, percent):
    page.wait_for_function(f"Math.abs({VIEWER}.at - {percent}) < 1")


def frame(page):
    return page.locator("paragon-viewer .frame").bounding_box()


def seen(page, which):
    return page.locator(f"paragon-viewer canvas.{which}").evaluate("c => c.toDataURL()")


def test_in_a_browser_a_picture_goes_in_and_the_commands_bytes_come_out(tab, photo, tmp_path):
    enlarge(tab, photo)
    assert "480 × 320" in tab.inner_text("#status")
    assert "onnxruntime" in tab.inner_text("#status")
    with tab.expect_download() as download:
        tab.click("#download")
    assert download.value.suggested_filename == "a photo_x2.png"
    target = tmp_path / "command.png"
    subprocess.run(
        [sys.executable, "-m", "paragonsr2", "upscale", str(photo), "-o", str(target)],
        check=True,
        capture_output=True,
    )
    assert Path(download.value.path()).read_bytes() == target.read_bytes()
    assert {urlsplit(url).hostname for url in tab.asked} == {"127.0.0.1"}
    assert tab.wrong == []


def test_in_a_browser_the_page_without_a_server_works(chromium, server, photo):
    page = chromium.new_page()
    page.set_default_timeout(60_000)
    page.goto(server.url + "/web")
    # It reloads once its service worker is there.
    page.wait_for_selector("[data-offline=ready]")
    page.set_input_files("#chooser", str(photo))
    page.wait_for_selector("[data-state=done]")
    assert page.inner_text("#status").startswith("240 × 160 → 480 × 320")
    page.close()


def test_in_a_browser_the_slider_and_the_crop_move(tab, photo):
    enlarge(tab, photo)
    wait_split(tab, 50)
    stage = tab.locator("paragon-viewer .stage").bounding_box()
    middle = stage["y"] + stage["height"] / 3
    tab.mouse.move(stage["x"] + stage["width"] / 2, middle)
    tab.mouse.down()
    tab.mouse.move(stage["x"] + stage["width"] / 4, middle, steps=3)
    tab.mouse.up()
    wait_split(tab, 25)
    tab.locator("paragon-viewer .handle").press("ArrowRight")
    wait_split(tab, 27)

    tab.click("paragon-viewer [data-zoom='4']")
    before = frame(tab), seen(tab, "a"), seen(tab, "b")
    assert before[1] != before[2]
    tab.mouse.click(stage["x"] + stage["width"] * 0.8, stage["y"] + stage["height"] * 0.2)
    tab.wait_for_function(f"{VIEWER}.centre.x > 0.75")
    clicked = frame(tab), seen(tab, "a"), seen(tab, "b")
    assert all(one != other for one, other in zip(before, clicked, strict=True))
    pane = tab.locator("paragon-viewer canvas.a").bounding_box()
    tab.mouse.move(pane["x"] + 50, pane["y"] + 50)
    tab.mouse.down()
    tab.mouse.move(pane["x"] + 150, pane["y"] + 90, steps=4)
    tab.mouse.up()
    tab.wait_for_function(f"{VIEWER}.centre.x < 0.75")
    assert frame(tab)["x"] < clicked[0]["x"]
    assert seen(tab, "a") != clicked[1]


def test_in_a_browser_what_is_wrong_is_said_and_the_next_picture_works(tab, photo, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:3000])
    choose(tab, broken)
    tab.wait_for_selector("#status [role=alert]")
    assert "damaged" in tab.inner_text("#status")
    assert tab.is_disabled("#go")
    for name, content, words in (
        ("notes.txt", b"hello", "the page cannot read"),
        ("large.png", bytes(300_000), "takes up to"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        choose(tab, path)
        tab.wait_for_selector(f"paragon-drop .error:has-text('{words}')")
    enlarge(tab, photo)
    assert tab.locator("paragon-drop .error").inner_text() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_asked_to_end_amid_work_it_removes_its_files(server):
    """The last test of this server."""
    with Visitor(server) as visitor:
        token = visitor.upload("a.png", picture("JPEG", 250, 400)).json()["token"]
        body = {
            "data": [token, "realtime", 2, "keep"],
            "fn_index": visitor.functions()["click4"],
            "session_hash": visitor.session,
        }
        visitor.http.post("/gradio_api/queue/join", json=body)
        query = {"session_hash": visitor.session}
        with visitor.http.stream("GET", "/gradio_api/queue/data", params=query) as lines:
            next(lines.iter_lines())
            assert stop_server(server) == 130
    assert list(server.folder.iterdir()) == []
    assert "Traceback" not in server.log.read_text()
