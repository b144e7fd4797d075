"""The same as ``paragonsr2 benchmark``, for a checkout of the repository.

To time the bundled models and compare them with other networks::

    python benchmark_release.py --peers peers.json --plot docs/images/quality_speed
"""

from __future__ import annotations

import sys

from paragonsr2.cli.main import app, exit_on_error


def main() -> None:
    """Run the verb ``benchmark`` with the arguments of this script."""
    with exit_on_error("benchmark_release"):
        app(["benchmark", *sys.argv[1:]])


if __name__ == "__main__":
    main()
