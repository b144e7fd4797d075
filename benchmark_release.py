"""The same as ``paragonsr2 benchmark``, for a checkout of the repository.

To time the bundled models and compare them with other networks::

    python benchmark_release.py --peers peers.json --plot docs/images/quality_speed
"""

from __future__ import annotations

import typer

from paragonsr2.cli.benchmark import benchmark
from paragonsr2.cli.main import exit_on_error


def main() -> None:
    """Run the verb ``benchmark``."""
    with exit_on_error("benchmark_release"):
        typer.run(benchmark)


if __name__ == "__main__":
    main()
