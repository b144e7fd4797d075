"""Fail if a pinned package has a known vulnerability that a newer version mends.

    pip-audit -r constraints.txt --no-deps --disable-pip -f json | python tools/audit.py

Vulnerabilities that no version mends are printed and fail nothing: there is nothing to do yet.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def found(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Lines for what can be mended, and for what cannot.

    Args:
        report: of pip-audit, in its JSON format.
    """
    mended: list[str] = []
    others: list[str] = []
    for package in report["dependencies"]:
        for flaw in package.get("vulns", []):
            name = f"{package['name']} {package['version']}: {flaw['id']}"
            if flaw["fix_versions"]:
                mended.append(f"{name}, mended in {', '.join(flaw['fix_versions'])}")
            else:
                others.append(f"{name}, not mended in any version")
    return mended, others


def main() -> None:
    """Read a report from standard input."""
    report = json.load(sys.stdin)
    unknown = [p["name"] for p in report["dependencies"] if "skip_reason" in p]
    mended, others = found(report)
    for line in [*mended, *others]:
        print(line)
    if unknown:
        print(f"not audited: {', '.join(unknown)}")
    if mended or len(unknown) == len(report["dependencies"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
