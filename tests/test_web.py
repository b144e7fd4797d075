"""The static page: what is written, and what it does in a real browser."""

from __future__ import annotations

import hashlib
import io
import json
import re

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from benchmark.web_page import choose, open_page, served
from clips import make_clip, regular
from conftest import ROOT, photo_like
from paragonsr2.cli.main import main
from paragonsr2.web import site
from paragonsr2.weights.catalogue import bundled_bytes, bundled_path, find

SOURCES = ROOT / "web"
PATIENCE = 120_000  # milliseconds; other tests run beside these


def test_the_pages_are_built_from_their_sources():
    files = [
        path
        for folder in ("app", "src", "static")
        for path in (SOURCES / folder).rglob("*")
        if path.is_file()
    ]
    files += [SOURCES / name for name in ("build.mjs", "package-lock.json", "tsconfig.json")]
    names = {path.relative_to(SOURCES).as_posix(): path for path in files}
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0".encode() + names[name].read_bytes())
    built = json.loads((SOURCES / "built.json").read_text())
    assert built["sources"] == digest.hexdigest(), "the pages are older than web/; run make web"


def test_the_lock_file_names_no_registry():
    lock = json.loads((SOURCES / "package-lock.json").read_text())
    packages = [about for name, about in lock["packages"].items() if name]
    assert all("integrity" in about and "resolved" not in about for about in packages)


def test_the_verb_writes_the_page(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "a page"
    monkeypatch.setattr("sys.argv", ["paragonsr2", "web", "--out", str(folder)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (None, 0)
    out, err = capsys.readouterr()
    assert out.strip() == str(folder / "index.html")
    assert "http.server" in err
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    kept = set(json.loads((folder / "files.json").read_text()))
    assert kept - {"./"} == there - {"sw.js", "files.json"}
    for scale in (2, 4):
        content = (folder / f"models/realtime_x{scale}.onnx").read_bytes()
        assert content == bundled_bytes(find("realtime", scale), "onnx")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8e6
    assert {"licences/onnxruntime.txt", "licences/paragonsr2.txt"} <= there


def test_another_file_makes_another_version(tmp_path, monkeypatch):
    def worker():
        site.page_files.cache_clear()
        return site.page_files()["sw.js"]

    first = worker()
    assert b"@VERSION@" not in first
    assert worker() == first
    changed = site._models() | {"models/realtime_x2.onnx": b"new weights"}
    monkeypatch.setattr(site, "_models", lambda: changed)
    assert worker() != first
    site.page_files.cache_clear()


def test_the_page_names_no_other_host():
    for name, content in site.page_files().items():
        if name.endswith((".html", ".css", ".webmanifest", ".json")):
            assert not re.search(rb"https?://", content), name
    policy = re.search(rb'Security-Policy" content="([^"]*)"', site.page_files()["index.html"])
    assert policy is not None
    assert policy[1].startswith(b"default-src 'self'; ")
    assert b"unsafe-inline" not in policy[1]
    assert b"'unsafe-eval'" not in policy[1]


# --- in a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    site.write_page(folder)
    with served(folder) as found:
        yield found


@pytest.fixture(scope="module")
def requests():
    """The addresses that the page asked for."""
    return []


@pytest.fixture(scope="module")
def page(browser, address, requests):
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    context.on("request", lambda request: requests.append(request.url))
    yield open_page(context, address)
    context.close()


def give(page, name, content):
    page.set_input_files("#chooser", {"name": name, "mimeType": "", "buffer": content})


def result_of(page, pixels):
    """What the page makes of a picture ``(H, W, 3 or 4)``."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    page.set_input_files(
        "#chooser", {"name": "a.b.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    page.wait_for_selector("[data-state=done], [data-state=failed]")
    assert page.get_attribute("body", "data-state") == "done", page.inner_text("#status")
    with page.expect_download() as download:
        page.click("#download")
    assert re.fullmatch(r"a\.b_x[24]\.png", download.value.suggested_filename)
    return np.asarray(Image.open(download.value.path()))


def wanted(scale, pixels):
    """What ONNX Runtime makes of ``(H, W, 3)`` in Python."""
    x = pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255
    path = bundled_path(find("realtime", scale), "onnx")
    y = onnxruntime.InferenceSession(str(path)).run(None, {"input": x})[0]
    return np.rint(y[0].transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)


def difference(a, b):
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int)).max()


# The second is cut into three parts.
@pytest.mark.parametrize(("scale", "size"), [(2, (37, 61)), (2, (9, 1200)), (4, (16, 24))])
def test_a_picture_is_what_python_makes(page, scale, size):
    pixels = photo_like(max(size), max(size))[: size[0], : size[1]]
    choose(page, "place", "cpu")
    choose(page, "scale", str(scale))
    made = result_of(page, pixels)
    assert difference(made[..., :3], wanted(scale, pixels)) <= 1
    assert "on the processor" in page.inner_text("#status")


def test_a_picture_on_the_graphics_card_is_what_python_makes(page):
    if not page.is_visible("#places"):
        pytest.skip("this Chromium has no WebGPU adapter")
    pixels = photo_like(64, 64)[:21, :35]
    choose(page, "scale", "2")
    choose(page, "place", "gpu")
    made = result_of(page, pixels)
    assert "graphics card" in page.inner_text("#status")
    choose(page, "place", "cpu")
    assert difference(made[..., :3], wanted(2, pixels)) <= 1


def test_alpha_is_enlarged(page):
    pixels = np.dstack([photo_like(24, 32), np.full((24, 32), 255, np.uint8)])
    pixels[:, 16:, 3] = 0
    choose(page, "place", "cpu")
    choose(page, "scale", "2")
    alpha = result_of(page, pixels)[..., 3]
    mask = np.repeat(pixels[..., 3:], 3, axis=2)
    assert difference(alpha, wanted(2, mask)[..., 0]) <= 1


def test_a_clip_plays(page, tmp_path):
    make_clip(tmp_path / "clip.mp4", regular(50), options={"crf": "18"})
    choose(page, "place", "cpu")
    choose(page, "scale", "2")
    page.set_input_files("#chooser", str(tmp_path / "clip.mp4"))
    page.wait_for_selector("[data-state=playing], [data-state=failed]")
    assert page.get_attribute("body", "data-state") == "playing", page.inner_text("#status")
    assert page.inner_text("#status").startswith("64 × 36 → 128 × 72")
    first = int(page.get_attribute("body", "data-frames"))
    page.wait_for_selector(f"body:not([data-frames='{first}'])")
    page.click("#play")
    page.wait_for_selector("#play:text('Play')")
    # Of a clip that stands, the same frame is shown before and after.
    page.wait_for_selector("#status:not(:text('a second'))")
    before, after = (
        np.array(
            page.evaluate(
                """selector => {
                    const canvas = document.querySelector(selector);
                    const { width, height } = canvas;
                    const copy = new OffscreenCanvas(width, height).getContext("2d");
                    copy.drawImage(canvas, 0, 0);
                    return Array.from(copy.getImageData(0, 0, width, height).data);
                }""",
                selector,
            ),
            np.uint8,
        )
        for selector in (".before", ".after")
    )
    frame = before.reshape(36, 64, 4)[..., :3]
    assert frame.std() > 5
    assert difference(after.reshape(72, 128, 4)[..., :3], wanted(2, frame)) <= 1


def test_what_is_no_picture_is_refused_in_words(page):
    give(page, "x.png", b"no picture")
    page.wait_for_selector("[data-state=failed]")
    assert "cannot open this file" in page.inner_text("#status")
    give(page, "x.mp4", b"no clip")
    page.wait_for_selector("#status:text('cannot play this clip')")
    assert page.is_visible(".other")


def test_nothing_goes_elsewhere(page, address, requests):
    assert requests
    assert [url for url in requests if not url.startswith((address, f"blob:{address}"))] == []
    assert page.evaluate("fetch('http://127.0.0.2/').then(() => 'sent', () => 'refused')") == (
        "refused"
    )


def test_the_last_choice_counts(page):
    pixels = photo_like(40, 40)
    choose(page, "place", "cpu")
    choose(page, "scale", "4")
    give(page, "x.mp4", b"no clip")
    made = page.evaluate_handle("() => document.querySelectorAll('input[name=scale]')")
    file = io.BytesIO()
    Image.fromarray(photo_like(300, 300)).save(file, "PNG")
    give(page, "large.png", file.getvalue())
    # Amid the work on it, the scale changes thrice, and another picture comes.
    made.evaluate("radios => [0, 1, 0].forEach(number => radios[number].click())")
    assert difference(result_of(page, pixels)[..., :3], wanted(2, pixels)) <= 1


def test_without_a_service_worker_it_has_one_thread(browser, address):
    context = browser.new_context(accept_downloads=True, service_workers="block")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(address)
    pixels = photo_like(16, 16)
    assert difference(result_of(page, pixels)[..., :3], wanted(2, pixels)) <= 1
    assert page.inner_text("#status").endswith("on the processor, 1 thread")
    context.close()


def test_it_works_with_the_network_off(browser, tmp_path):
    site.write_page(tmp_path)
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    with served(tmp_path) as address:
        page = open_page(context, address)
    context.set_offline(True)
    page.reload()
    page.wait_for_selector("[data-offline=ready]")
    pixels = photo_like(16, 16)
    assert difference(result_of(page, pixels)[..., :3], wanted(2, pixels)) <= 1
    context.close()
