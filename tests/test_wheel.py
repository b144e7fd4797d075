"""The wheel, installed where the repository is not: what a user gets works without it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT

pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist"]
    subprocess.run([*build, "-d", str(folder)], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def wheel(built):
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """A virtual environment whose ``paragonsr2`` is the wheel's.

    The libraries are those of the running environment, by a line in a .pth file: Python does not
    read the .pth files of a folder that is added so, among them that of an editable install.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    python = next(path for path in folder.glob("*/python*") if path.stem == "python")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet",
               "--disable-pip-version-check", "--no-index", "--no-deps", str(wheel)]  # fmt: skip
    subprocess.run(install, check=True, capture_output=True, env=environment())
    site = next(folder.rglob("site-packages"))
    libraries = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (site / "libraries.pth").write_text("\n".join(libraries))
    return python


def environment():
    """This process's, without what leads to the repository."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def command(python, *arguments, cwd):
    return subprocess.run(
        [python.with_name("paragonsr2"), *map(str, arguments)],
        cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2
    assert "paragonsr2" in tops
    assert "paragonsr2/app/examples/houses.png" in names
    page = {f"paragonsr2/web/page/{name}" for name in ("index.html", "main.js", "runtime.bin")}
    page |= {f"paragonsr2/app/page/{name}" for name in ("index.html", "app.js", "base.css")}
    assert page <= set(names)
    for suffix in (".onnx", ".safetensors"):
        there = {path.name for path in (ROOT / "src").rglob(f"*{suffix}")}
        assert there == {Path(name).name for name in names if name.endswith(suffix)}


def test_the_source_distribution_has_no_laboratory(built):
    (found,) = built.glob("*.tar.gz")
    with tarfile.open(found) as content:
        folders = {name.split("/")[1] for name in content.getnames()}
    assert "src" in folders
    assert not folders & {"benchmark", "tests", "tools", "results"}


def test_the_package_is_the_wheels(installed, tmp_path):
    code = "import paragonsr2; print(paragonsr2.__file__)"
    run = subprocess.run(
        [installed, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert Path(run.stdout.strip()).is_relative_to(installed.parents[1])


def test_upscale(installed, tmp_path):
    (tmp_path / "in.png").write_bytes((ROOT / "examples" / "houses.png").read_bytes())
    run = command(installed, "upscale", "in.png", "-o", "out.png", "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_peers_need_the_repository(installed, tmp_path):
    run = command(installed, "benchmark", "--peers", "peers.json", cwd=tmp_path)
    assert run.returncode == 2
    assert "benchmark_release.py" in run.stderr


def test_the_page(installed, tmp_path):
    pytest.importorskip("fastapi_offline", reason="the extra app is not installed")
    server = subprocess.Popen(
        [installed.with_name("paragonsr2"), "app", "--port", "0"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said = server.stdout.readline()
        address = next(word for word in said.split() if word.startswith("http://"))
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"ParagonSR2" in answer.read()
        with urllib.request.urlopen(f"{address}/page/houses.png", timeout=60) as answer:
            assert answer.read() == (ROOT / "examples" / "houses.png").read_bytes()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
        server.stdout.close()
