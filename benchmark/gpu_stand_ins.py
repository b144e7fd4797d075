"""A player and a browser that compute a GPU's work on the CPU: Mesa's lavapipe and SwiftShader.

They show whether shaders are right, not how fast they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from paragonsr2.arrays.pixels import FloatNCHW, Pixels8

LAVAPIPE = Path("/usr/share/vulkan/icd.d/lvp_icd.x86_64.json")
#: Give a Chromium WebGPU that is computed on the CPU.
CHROMIUM_FLAGS = [
    "--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan", "--use-vulkan=swiftshader",
]  # fmt: skip


class MissingToolError(Exception):
    """A tool cannot run here; the message says why."""


def require_player() -> None:
    """Check that ffmpeg with libplacebo, and a Vulkan for a CPU, are installed.

    Raises:
        MissingToolError: one of them is missing.
    """
    if shutil.which("ffmpeg") is None or not LAVAPIPE.exists():
        raise MissingToolError(
            "needs ffmpeg and Mesa's lavapipe (Debian: ffmpeg, mesa-vulkan-drivers)"
        )
    filters = subprocess.run(["ffmpeg", "-filters"], capture_output=True, text=True, check=True)
    if "libplacebo" not in filters.stdout:
        raise MissingToolError("this ffmpeg is built without libplacebo")


def play(pixels: Pixels8, shader: str, scale: int) -> Pixels8:
    """Show a picture ``(H, W, 3)`` through an mpv user shader in ffmpeg's libplacebo.

    Returns:
        ``(H * scale, W * scale, 3)``.

    Raises:
        subprocess.CalledProcessError: ffmpeg failed.
    """
    height, width = pixels.shape[0] * scale, pixels.shape[1] * scale
    filters = (
        f"format=rgba,hwupload,libplacebo=w={width}:h={height}:custom_shader_path=x.glsl:"
        "format=rgba:dithering=-1:upscaler=none:downscaler=none,hwdownload,format=rgba"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(pixels).save(folder / "in.png")
        (folder / "x.glsl").write_text(shader, encoding="utf-8")
        subprocess.run(
            ["ffmpeg", "-v", "error", "-init_hw_device", "vulkan=vk:0", "-i", "in.png",
             "-vf", filters, "-frames:v", "1", "-update", "1", "out.png"],
            cwd=folder, check=True, timeout=300,
            env={**os.environ, "VK_ICD_FILENAMES": str(LAVAPIPE)},
        )  # fmt: skip
        return np.asarray(Image.open(folder / "out.png").convert("RGB"))


@contextmanager
def webgpu_page() -> Generator[Any]:
    """Open a page of a headless Chromium that has WebGPU and ``enlarge`` of ``webgpu.js``.

    Raises:
        MissingToolError: Chromium, Playwright or a WebGPU adapter is missing.
    """
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise MissingToolError("Playwright is not installed") from error
    if chromium is None:
        raise MissingToolError("Chromium is not installed")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page()
        page.route("**/*", lambda route: route.fulfill(body="<p>", content_type="text/html"))
        page.goto("https://localhost/")  # WebGPU exists on secure pages only
        page.add_script_tag(path=str(Path(__file__).with_name("webgpu.js")))
        if not page.evaluate("async () => !!(await navigator.gpu?.requestAdapter())"):
            raise MissingToolError("this Chromium has no WebGPU adapter")
        yield page
        browser.close()


def enlarge_in_browser(page: Any, document: dict[str, Any], rgba: FloatNCHW) -> FloatNCHW:
    """Run a WGSL document on ``(1, 4, H, W)``.

    Args:
        page: from :func:`webgpu_page`.
        document: parsed, from ``shaders.wgsl``.
        rgba: nominally 0..1.

    Returns:
        ``(1, 4, H * scale, W * scale)``.
    """
    height, width = rgba.shape[2:]
    found = page.evaluate(
        "([document, pixels, width, height]) => enlarge(document, pixels, width, height)",
        [document, rgba[0].transpose(1, 2, 0).ravel().tolist(), width, height],
    )
    scale = int(document["scale"])
    pixels = np.array(found, np.float32).reshape(height * scale, width * scale, 4)
    return pixels.transpose(2, 0, 1)[None]
