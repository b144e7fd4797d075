"""The static page of ``paragonsr2 web`` in a headless Chromium, for tests and measurements."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.gpu_stand_ins import CHROMIUM_FLAGS, MissingToolError


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def served(folder: Path) -> Generator[str]:
    """Serve a folder on this machine, as any web server would; yields its address."""
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def chromium() -> Generator[Any]:
    """A headless Chromium, of Playwright, that computes WebGPU on the CPU.

    Raises:
        MissingToolError: Chromium or Playwright is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise MissingToolError("Playwright is not installed") from error
    program = shutil.which("chromium")
    if program is None:
        raise MissingToolError("Chromium is not installed")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def open_page(context: Any, address: str) -> Any:
    """Open the page in a browser context, and wait until it is kept for use offline.

    The page reloads once when that is so; then it may use several threads.
    """
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("[data-offline=ready]")
    return page


def choose(page: Any, name: str, value: str) -> None:
    """Choose ``scale`` 2 or 4, or ``place`` ``gpu`` or ``cpu``."""
    page.locator(f"label:has(input[name={name}][value='{value}'])").click()
