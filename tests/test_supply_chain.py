"""What the project brings along: audits, and pins that agree with what is asked for."""

from __future__ import annotations

import re
import sys
import tomllib

import pytest

from conftest import ROOT

sys.path.append(str(ROOT / "tools"))
import audit


def package(name, *fixes, skipped=False):
    if skipped:
        return {"name": name, "skip_reason": "not found"}
    flaws = [{"id": f"PYSEC-{n}", "fix_versions": list(fix)} for n, fix in enumerate(fixes)]
    return {"name": name, "version": "1", "vulns": flaws}


def test_an_audit_fails_only_where_a_newer_version_helps(monkeypatch, capsys):
    sound, hopeless, mended = package("a"), package("b", ()), package("c", (), ("2",))

    def run(*packages):
        monkeypatch.setattr(audit.json, "load", lambda _: {"dependencies": list(packages)})
        audit.main()

    run(sound, hopeless, package("d", skipped=True))
    assert "b 1: PYSEC-0, not mended" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="1"):
        run(sound, mended)
    assert "c 1: PYSEC-1, mended in 2" in capsys.readouterr().out
    # An index that knows no package has audited nothing.
    with pytest.raises(SystemExit, match="1"):
        run(package("d", skipped=True))


def test_every_direct_dependency_is_pinned_once_and_within_its_bounds():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"(\S+)==(\S+)", line.split(";")[0].strip()):
            assert canonicalize_name(match[1]) not in pins
            pins[canonicalize_name(match[1])] = match[2]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    extras = ("torch", "train", "openvino", "plot", "app", "serve", "temporal", "cluster", "docs")
    for extra in (*extras, "dev"):
        wanted += project["optional-dependencies"][extra]
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name == "paragonsr2":
            continue
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version.split("+")[0]), text
