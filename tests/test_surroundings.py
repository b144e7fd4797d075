"""Surroundings that are not a developer's; ``fuzz/surroundings.py`` has those that need root."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import photo_like
from paragonsr2.cli.main import NAME, exit_on_error
from paragonsr2.errors import UsageError
from paragonsr2.serve.server import default_folder
from test_cli import fails_cleanly, run

ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
STRANGE = ("ä 日本 🐟.png", os.fsdecode(b"caf\xe9 \xff.png"), "new\nline.png")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the folder, or the name")
def test_strange_names_in_a_locale_of_c(tmp_path):
    (tmp_path / "in").mkdir()
    for name in STRANGE:
        Image.fromarray(photo_like(9, 11)).save(tmp_path / "in" / name, "png")
    done = run(
        "upscale", tmp_path / "in", "-m", "magic", "-o", tmp_path / "out",
        env=os.environ | ASCII, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(STRANGE)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the folder")
def test_a_current_folder_that_is_gone_is_one_line(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f'rmdir "{gone}"; exec "{sys.executable}" -m paragonsr2 models'
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        ["sh", "-c", command], cwd=gone, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    fails_cleanly(done, 3)
    assert "current folder is gone" in done.stderr


def test_a_service_of_a_user_without_a_home_asks_for_a_folder(monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UsageError, match="--folder"):
        default_folder()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EROFS, os.strerror(errno.EROFS), "/tmp/x"),
        FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
    ],
)
def test_no_room_for_temporary_files_is_one_line(error, capsys):
    with pytest.raises(SystemExit) as end, exit_on_error(NAME):
        raise error
    said = capsys.readouterr().err
    assert end.value.code == 3
    assert len(said.splitlines()) == 1
    assert "TMPDIR" in said


def test_another_error_of_the_system_is_not_hidden():
    with pytest.raises(PermissionError), exit_on_error(NAME):
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root writes anywhere")
@pytest.mark.parametrize("verb", ["upscale", "export", "web", "evaluate"])
def test_a_folder_that_may_not_be_written_is_one_line(verb, tmp_path):
    Image.fromarray(photo_like(24, 24)).save(tmp_path / "a.png")
    (tmp_path / "out").mkdir(mode=0o555)
    out = tmp_path / "out"
    arguments = {
        "upscale": [tmp_path / "a.png", "-m", "magic", "-o", out / "a.png"],
        "export": ["-m", "realtime", "-o", out],
        "web": ["-o", out],
        "evaluate": [tmp_path, "-m", "magic", "--result", out / "r.json"],
    }[verb]
    done = run(verb, *arguments)
    assert done.returncode in (1, 2, 3)
    assert "Traceback" not in done.stderr
    assert "ermission denied" in done.stderr
