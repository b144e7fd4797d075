"""The page in a real browser: files in, results out, and everything that a visitor sees."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from PIL import Image

from benchmark.gpu_stand_ins import MissingToolError
from benchmark.web_page import chromium
from clips import make_clip, regular
from conftest import photo_like
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler
from paragonsr2.upscale.video import VideoOptions

pytest.importorskip("prometheus_client", reason="the extra app is not installed")
pytest.importorskip("fastapi_offline", reason="the extra app is not installed")
from paragonsr2.app.routes import page_routes
from serving import LIMITS, picture, serving

PATIENCE = 120_000  # milliseconds; other tests run beside these

DESK = {"width": 1280, "height": 900}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def browser():
    try:
        with chromium() as found:
            yield found
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    limits = replace(LIMITS, body_bytes=300_000, newest_first=True)
    pages = page_routes(limits, local=True)
    with serving(tmp_path_factory.mktemp("service"), limits, pages=pages) as found:
        yield found


def open_page(context, running):
    """Open the page in a tab that notes what it asks for and what goes wrong in it."""
    page = context.new_page()
    page.asked, page.wrong = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda said: said.type == "error" and page.wrong.append(said.text))
    page.goto(running.url)
    page.wait_for_selector("[data-ready]")
    return page


@pytest.fixture
def visit(browser, running):
    """Opens the page for another visitor."""
    contexts = []

    def visit(**options):
        contexts.append(browser.new_context(**({"viewport": DESK} | options)))
        contexts[-1].set_default_timeout(PATIENCE)
        return open_page(contexts[-1], running)

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def desk(browser):
    context = browser.new_context(viewport=DESK, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(desk, running):
    page = open_page(desk, running)
    yield page
    page.close()


def give(page, *files):
    """Choose files, as pairs of name and content."""
    page.set_input_files(
        "#chooser",
        [{"name": name, "mimeType": "", "buffer": content} for name, content in files],
    )


def row(page, name):
    return page.locator("#files li", has_text=name)


def wait_for(page, name, stage):
    page.wait_for_selector(f"li[data-stage={stage}]:has-text('{name}')")


def enlarge(page, *files):
    give(page, *files)
    page.click("#go:enabled")
    for name, _ in files:
        wait_for(page, name, "done")
    page.wait_for_selector("#viewer[data-shows=result]")


def by_command(folder, name, content, to, model="realtime", scale=2, **options):
    source, target = folder / name, folder / to
    source.write_bytes(content)
    assert run_task(Task(source, target), Upscaler(model, scale), **options).status == "done"
    return target.read_bytes()


def downloaded(page, selector):
    with page.expect_download() as download:
        page.click(selector)
    with open(download.value.path(), "rb") as file:  # noqa: PTH123
        return download.value.suggested_filename, file.read()


PHOTO = picture("PNG", 160, 240)


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


def test_what_each_model_is_for_is_seen_before_choosing(page, running):
    page.wait_for_selector("#models label")
    seen = page.locator("#models label").all_inner_texts()
    rows = running.get("/v1/models").json()["models"]
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


def test_several_files_each_have_a_state_and_come_in_one_zip(page, tmp_path, running):
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
    assert page.locator(".stage .after").evaluate("image => image.naturalWidth") == 64
    before = len(running.files())
    row(page, "one.png").locator(".remove").click()
    assert page.locator("#files li").count() == 4
    while len(running.files()) != before - 1:
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
        "&& b.currentTime === a.currentTime && a.videoWidth === 2 * b.videoWidth; }"
    )
    page.fill(".seek", "500")
    page.wait_for_function(
        f"() => {{ {videos} return Math.abs(a.currentTime / a.duration - 0.5) < 0.01 "
        "&& b.currentTime === a.currentTime; }"
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


def test_the_time_left_is_shown_and_the_work_can_be_cancelled(page, running):
    pretend(page, state="running", share=0.25, left=74.0)
    give(page, ("a.png", PHOTO))
    page.click("#go:enabled")
    page.wait_for_selector("#card:has-text('25 %, about 75 s left')")
    assert "about 75 s left" in row(page, "a.png").inner_text()
    assert page.locator("#card progress").get_attribute("value") == "0.25"
    page.click("#stop")
    wait_for(page, "a.png", "ready")
    assert page.is_hidden("#stop")
    while running.files():
        running.parts.runner.forget_oldest()


def test_a_full_server_is_asked_again(page):
    refused = []

    def refuse_once(route):
        if refused:
            return route.continue_()
        refused.append(route.request.url)
        error = json.dumps({"error": "too many jobs are waiting; try again later"})
        return route.fulfill(status=429, headers={"Retry-After": "1"}, body=error)

    page.route(re.compile(r"/v1/jobs\?"), refuse_once)
    enlarge(page, ("a.png", PHOTO))
    assert refused


def test_a_result_that_the_server_has_dropped_is_told(page, running):
    enlarge(page, ("a.png", PHOTO), ("b.png", PHOTO))
    while running.parts.runner.forget_oldest():
        pass
    hidden = "b.png" if row(page, "a.png").locator("[aria-current=true]").count() else "a.png"
    row(page, hidden).locator(".pick").click()
    wait_for(page, hidden, "failed")
    assert "no longer has its result" in page.inner_text("#card")
    page.click("#go")
    wait_for(page, hidden, "done")


def test_who_leaves_takes_only_his_own_files_along(visit, running):
    mine, other = visit(), visit()
    for one in (mine, other):
        enlarge(one, ("a.png", PHOTO))
    stays = other.get_attribute("#download", "href")
    before = len(running.files())
    mine.goto("about:blank")
    while len(running.files()) != before - 1:
        pass
    assert running.get(f"/{stays}").status_code == 200


# --- how it looks -----------------------------------------------------------------------------


def split(page):
    return float(
        page.evaluate("document.querySelector('.stage').style.getPropertyValue('--split')")[:-1]
    )


def seen(page, number):
    return page.locator(".panes canvas").nth(number).evaluate("canvas => canvas.toDataURL()")


def outline(page):
    return page.locator(".outline").bounding_box()


def test_the_line_and_the_crop_move(page):
    enlarge(page, ("a.png", picture("PNG", 250, 400)))
    assert split(page) == 50
    page.locator(".stage").scroll_into_view_if_needed()
    stage = page.locator(".stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 3
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] / 4, y, steps=3)
    page.mouse.up()
    assert split(page) == pytest.approx(25, abs=1)
    page.locator(".split").press("End")
    assert split(page) == 100

    page.click("[data-zoom='4']")
    assert page.get_attribute("[data-zoom='4']", "aria-pressed") == "true"
    before = outline(page), seen(page, 0), seen(page, 1)
    assert before[1] != before[2]
    stage = page.locator(".stage").bounding_box()
    page.mouse.click(stage["x"] + stage["width"] * 0.8, stage["y"] + stage["height"] * 0.2)
    clicked = outline(page), seen(page, 0), seen(page, 1)
    assert all(one != other for one, other in zip(before, clicked, strict=True))
    assert split(page) == 100, "a click away from the line leaves it"
    page.locator(".panes").scroll_into_view_if_needed()
    pane = page.locator(".panes canvas").first.bounding_box()
    clicked = outline(page), seen(page, 1)
    page.mouse.move(pane["x"] + 50, pane["y"] + 50)
    page.mouse.down()
    page.mouse.move(pane["x"] + 150, pane["y"] + 90, steps=4)
    page.mouse.up()
    assert outline(page)["x"] < clicked[0]["x"]
    assert seen(page, 1) != clicked[1]
    page.locator(".panes canvas").first.press("ArrowRight")
    page.click(".pixels")
    assert page.get_attribute(".pixels", "aria-pressed") == "true"


def test_on_a_phone_the_result_comes_into_view(visit):
    page = visit(**PHONE, reduced_motion="reduce")
    give(page, ("a.png", PHOTO))
    wait_for(page, "a.png", "ready")
    top = "document.querySelector('#result').getBoundingClientRect().top"
    page.evaluate("scrollTo(0, 0)")
    assert page.evaluate(f"{top} >= innerHeight"), "it is far below"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    page.click("#go")
    page.wait_for_selector("#viewer[data-shows=result]")
    page.wait_for_function(
        """() => {
            const { top, bottom } = document.querySelector("#compare").getBoundingClientRect();
            return top >= 0 && bottom <= innerHeight;
        }"""
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_pictures_are_pasted_and_dropped(page):
    data = list(PHOTO)
    for kind in ("paste", "drop"):
        page.evaluate(
            """([kind, data]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(data)], `${kind}.png`));
                const options = { bubbles: true, cancelable: true };
                document.body.dispatchEvent(kind === "paste"
                    ? new ClipboardEvent(kind, { ...options, clipboardData: transfer })
                    : new DragEvent(kind, { ...options, dataTransfer: transfer }));
            }""",
            [kind, data],
        )
        wait_for(page, f"{kind}.png", "ready")


def test_a_button_pastes_what_the_clipboard_has(visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (data) => {
            const picture = new Blob([new Uint8Array(data)], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }""",
        list(PHOTO),
    )
    page.click("#paste")
    wait_for(page, "pasted.png", "ready")
    assert "240 × 160" in row(page, "pasted.png").inner_text()


def test_dark_or_light_is_as_the_visitor_says(visit):
    page = visit(color_scheme="dark")

    def brightness():
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    assert brightness() < 60
    page.click("#theme")
    assert brightness() > 200
    page.reload()
    page.wait_for_selector("[data-ready]")
    assert brightness() > 200


def test_everything_has_a_name_and_is_reached_by_keys(page):
    enlarge(page, ("a.png", PHOTO), ("b.png", PHOTO))
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, a[href], input, select, canvas, progress")]
            .filter((one) => one.checkVisibility() && !one.closest("[aria-hidden]"))
            .filter((one) => !(one.ariaLabel || one.labels?.length
                || one.textContent.trim() || one.querySelector("img[alt]:not([alt=''])")))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(45):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.className + document.activeElement.id"))
    for wanted in ("choose zone", "pick", "remove", "split", "pixels", "buttonzip", "theme"):
        assert any(wanted in one for one in reached), (wanted, reached)
    assert page.locator("#said[role=status]").inner_text().endswith("is enlarged")


def test_the_example_is_there_to_try(page):
    page.click("#examples button")
    wait_for(page, "houses.png", "refused")  # this service takes less
    assert Image.open(io.BytesIO(page.request.get(f"{page.url}page/houses.png").body())).size


def test_the_page_without_a_server_works(visit):
    page = visit()
    page.click("footer a[href='web/']")
    # It reloads once its service worker is there.
    page.wait_for_selector("[data-offline=ready]")
    file = io.BytesIO()
    Image.fromarray(photo_like(40, 60)).save(file, "PNG")
    give(page, ("a.png", file.getvalue()))
    page.wait_for_selector("[data-state=done]")
    assert page.inner_text("#status").startswith("60 × 40 → 120 × 80")
    assert page.wrong == []
