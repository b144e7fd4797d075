"""How the page looks and is used: the line and the crop, phones, keys, light and dark."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from conftest import photo_like

pytest.importorskip("prometheus_client", reason="the extra app is not installed")
pytest.importorskip("fastapi_offline", reason="the extra app is not installed")
from serving import picture
from visiting import PHONE, PHOTO, enlarge, give, row, wait_for


@pytest.fixture
def page(at_desk):
    return at_desk


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
