"""What a visitor of the page does, in a real browser."""

from __future__ import annotations

from paragonsr2.upscale.by_file import suited_to
from paragonsr2.upscale.job import run_task
from paragonsr2.upscale.task import Task
from paragonsr2.upscale.upscaler import Upscaler
from serving import picture

PATIENCE = 120_000  # milliseconds; other tests run beside these

DESK = {"width": 1280, "height": 900}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


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


def by_command(folder, name, content, to, model=None, scale=2, **options):
    source, target = folder / name, folder / to
    source.write_bytes(content)
    model = model or suited_to(source, scale)
    assert run_task(Task(source, target), Upscaler(model, scale), **options).status == "done"
    return target.read_bytes()


def downloaded(page, selector):
    with page.expect_download() as download:
        page.click(selector)
    with open(download.value.path(), "rb") as file:  # noqa: PTH123
        return download.value.suggested_filename, file.read()


PHOTO = picture("PNG", 160, 240)
