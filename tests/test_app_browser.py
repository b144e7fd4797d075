"""The page in a real browser: files in, results out, and what is said meanwhile."""

from __future__ import annotations

import io
import json
import re
import zipfile
from urllib.parse import urlsplit

import pytest

from clips import make_clip, regular
from paragonsr2.upscale.video import VideoOptions

pytest.importorskip("prometheus_client", reason="the extra app is not installed")
pytest.importorskip("fastapi_offline", reason="the extra app is not installed")
from serving import picture
from visiting import PHOTO, by_command, downloaded, enlarge, give, row, wait_for


@pytest.fixture
def page(at_desk):
    return at_desk


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    make_clip(path, regular(40), sounds=1)
    return path.read_bytes()


# --- files in, results out --------------------------------------------------------------------


def test_a_picture_goes_in_and_the_commands_bytes_come_out(page, tmp_path):
    enlarge(page, ("a photo.png", PHOTO))
    card = page.inner_text("#card")
    assert "240 × 160 → 480 × 320" in card
    assert "onnxruntime" in card
    name, content = downloaded(page, "#download")
    assert name == "a photo_x2.png"
    assert content == by_command(tmp_path, "in.png", PHOTO, "out.png")
    assert {urlsplit(url).hostname for url in page.asked} <= {"127.0.0.1", None}  # blob: has none
    assert page.wrong == []


def test_the_choices_are_those_of_the_command(page, tmp_path):
    page.click("label:has([value='magic:1.0'])")
    page.click("label:has([name=scale][value='3'])")
    page.select_option("[name=format]", "webp")
    page.fill("#picture-quality", "60")
    enlarge(page, ("a.png", PHOTO))
    name, content = downloaded(page, "#download")
    assert name == "a_x3.webp"
    options = {"model": "magic:1.0", "scale": 3, "quality": 60}
    assert content == by_command(tmp_path, "in.png", PHOTO, "out.webp", **options)
    # What was made stays until something else is wanted.
    assert page.is_disabled("#go")
    page.select_option("[name=format]", "png")
    assert page.is_enabled("#go")
    assert page.is_hidden("#picture-quality")


def test_what_each_model_is_for_is_seen_before_choosing(page, page_service):
    page.wait_for_selector("#models label")
    seen = page.locator("#models label").all_inner_texts()
    rows = page_service.get("/v1/models").json()["models"]
    purposes = {one["model"]: one["purpose"] for one in rows}
    assert len(seen) == len(purposes)
    for text in purposes.values():
        assert any(text.lower() in one.lower().replace("\n", " ") for one in seen), text
    # A scale that a model lacks cannot be chosen.
    lacking = next(one for one in purposes if one.startswith("stream:"))
    page.click("label:has([name=scale][value='8'])")
    page.click(f"label:has([value='{lacking}'])")
    assert page.is_disabled("[name=scale][value='8']")
    assert page.is_checked("[name=scale][value='2']")


def test_a_model_with_a_faithful_parent_has_a_dial(page, tmp_path):
    assert page.is_hidden("#strength")
    page.click("label:has([value='stream:real'])")
    page.fill("#strength", "0.4")
    enlarge(page, ("a.png", PHOTO))
    content = downloaded(page, "#download")[1]
    assert content == by_command(tmp_path, "in.png", PHOTO, "out.png", model="stream:real@0.4")


def test_several_files_each_have_a_state_and_come_in_one_zip(page, tmp_path, page_service):
    broken = PHOTO[:3000]
    files = [
        ("one.png", PHOTO),
        ("two.jpg", picture("JPEG", 60, 90)),
        ("three.tif", picture("TIFF")),
    ]
    give(page, *files, ("broken.tif", picture("TIFF")[:100]), ("cut.png", broken))
    wait_for(page, "broken.tif", "refused")
    assert page.inner_text("#go") == "Enlarge 4 files"
    page.click("#go")
    for name, _ in files:
        wait_for(page, name, "done")
    wait_for(page, "cut.png", "failed")
    assert "damaged" in row(page, "cut.png").inner_text()
    assert "480 × 320" in row(page, "one.png").inner_text()
    assert page.inner_text("#go") == "Try again"
    name, content = downloaded(page, "#zip")
    assert name == "paragonsr2.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["one_x2.png", "two_x2.jpg", "three_x2.tif"]
        for inside, (given, source) in zip(archive.namelist(), files, strict=True):
            assert archive.read(inside) == by_command(tmp_path, given, source, inside)
    # A TIFF is shown, too, though the browser has no decoder for it.
    row(page, "three.tif").locator(".pick").click()
    page.wait_for_selector(".stage img.after")
    page.wait_for_function("() => document.querySelector('.stage .after').naturalWidth === 64")
    before = len(page_service.files())
    row(page, "one.png").locator(".remove").click()
    assert page.locator("#files li").count() == 4
    # The folder of the download may go meanwhile, too.
    while len(page_service.files()) >= before:
        pass


def test_what_is_wrong_is_said_and_the_next_picture_works(page):
    give(page, ("notes.txt", b"hello"), ("large.png", bytes(300_001)))
    for name, words in (("notes.txt", "cannot read"), ("large.png", "takes up to")):
        wait_for(page, name, "refused")
        assert words in row(page, name).inner_text()
        row(page, name).locator(".pick").click()
        assert words in page.inner_text("#card[role=alert]")
    assert page.is_disabled("#go")
    enlarge(page, ("a.png", PHOTO))
    assert page.locator("#card[role=alert]").count() == 0


def test_a_clip_plays_before_and_after_as_chosen(page, tmp_path, clip):
    give(page, ("a clip.mp4", clip))
    wait_for(page, "a clip.mp4", "ready")
    assert page.is_hidden("[name=format]")
    page.click("label:has([value=bicubic])")
    page.select_option("[name=container]", "mkv")
    page.select_option("[name=codec]", "h264")
    page.fill("#clip-quality", "30")
    page.click("#go")
    wait_for(page, "a clip.mp4", "done")
    page.wait_for_selector("#viewer[data-shows=result] video.after")
    name, content = downloaded(page, "#download")
    assert name == "a clip_x2.mkv"
    video = VideoOptions(codec="h264", quality=30)
    made = by_command(tmp_path, "in.mp4", clip, "out.mkv", model="bicubic", video=video)
    assert content == made
    videos = "const [b, a] = ['before', 'after'].map(n => document.querySelector(`video.${n}`));"
    page.wait_for_function(f"() => {{ {videos} return !a.paused && a.currentTime > 0.2; }}")
    page.click(".play")
    page.wait_for_function(
        f"() => {{ {videos} return a.paused && b.paused && !b.seeking "
        "&& Math.abs(b.currentTime - a.currentTime) < 0.02 && a.videoWidth === 2 * b.videoWidth; }"
    )
    page.fill(".seek", "500")
    page.wait_for_function(
        f"() => {{ {videos} return Math.abs(a.currentTime / a.duration - 0.5) < 0.01 "
        "&& Math.abs(b.currentTime - a.currentTime) < 0.02; }"
    )
    assert page.get_attribute(".mute", "aria-pressed") == "true"
    page.click(".mute")
    assert not page.evaluate("document.querySelector('video.after').muted")
    assert page.wrong == []


def test_a_clip_that_no_browser_plays_is_compared_by_a_frame(page, clip):
    page.click("label:has([value=bicubic])")
    give(page, ("a.mp4", clip))
    wait_for(page, "a.mp4", "ready")
    page.select_option("[name=container]", "mov")
    page.select_option("[name=codec]", "prores")
    page.click("#go")
    wait_for(page, "a.mp4", "done")
    page.wait_for_function(
        "() => ['before', 'after'].every((name, number) => "
        "document.querySelector(`.stage img.${name}`)?.naturalWidth === 64 * (number + 1))"
    )


# --- while it works ---------------------------------------------------------------------------


def pretend(page, **changes):
    """Let the server say about every job what is given here."""

    def answer(route):
        if route.request.method != "GET":
            return route.continue_()
        about = route.fetch().json() | changes
        return route.fulfill(body=json.dumps(about), content_type="application/json")

    page.route(re.compile(r"/v1/jobs/[0-9a-f]+$"), answer)


def test_the_time_left_is_shown_and_the_work_can_be_cancelled(page, page_service):
    pretend(page, state="running", share=0.25, left=74.0)
    give(page, ("a.png", PHOTO))
    page.click("#go:enabled")
    page.wait_for_selector("#card:has-text('25 %, about 75 s left')")
    assert "about 75 s left" in row(page, "a.png").inner_text()
    assert page.locator("#card progress").get_attribute("value") == "0.25"
    page.click("#stop")
    wait_for(page, "a.png", "ready")
    assert page.is_hidden("#stop")
    while page_service.files():
        page_service.parts.runner.forget_oldest()


def test_a_full_server_is_asked_again(page):
    refused = []

    def refuse_at_first(route):
        refused.append(route.request.url)
        if len(refused) == 1:
            error = json.dumps({"error": "too many jobs are waiting; try again later"})
            return route.fulfill(status=429, headers={"Retry-After": "1"}, body=error)
        # It also hangs up on those who still send.
        return route.abort() if len(refused) < 6 else route.continue_()

    page.route(re.compile(r"/v1/jobs\?"), refuse_at_first)
    enlarge(page, ("a.png", PHOTO))
    assert len(refused) == 6


def test_a_server_that_is_gone_is_told(page):
    give(page, ("a.png", PHOTO))
    wait_for(page, "a.png", "ready")
    page.route(re.compile(r"/v1/jobs|/healthz"), lambda route: route.abort())
    page.click("#go")
    wait_for(page, "a.png", "failed")
    assert "cannot be reached" in page.inner_text("#card[role=alert]")
    page.unroute_all()
    page.click("#go:has-text('Try again')")
    wait_for(page, "a.png", "done")


def test_a_result_that_the_server_has_dropped_is_told(page, page_service):
    enlarge(page, ("a.png", PHOTO), ("b.png", PHOTO))
    while page_service.parts.runner.forget_oldest():
        pass
    hidden = "b.png" if row(page, "a.png").locator("[aria-current=true]").count() else "a.png"
    row(page, hidden).locator(".pick").click()
    wait_for(page, hidden, "failed")
    assert "no longer has its result" in page.inner_text("#card")
    page.click("#go")
    wait_for(page, hidden, "done")


def test_who_leaves_takes_only_his_own_files_along(visit, page_service):
    mine, other = visit(), visit()
    for one in (mine, other):
        enlarge(one, ("a.png", PHOTO))
    stays = other.get_attribute("#download", "href")
    before = len(page_service.files())
    mine.goto("about:blank")
    # The folder of the download may go meanwhile, too.
    while len(page_service.files()) >= before:
        pass
    assert page_service.get(f"/{stays}").status_code == 200
