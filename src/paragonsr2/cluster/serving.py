"""The HTTP service on a Ray cluster, by Ray Serve: ``serve run paragonsr2.cluster.serving:build``.

It is the application of ``paragonsr2 serve``, in replicas that each hold their models. Requests go
to any of them, so that only what one request asks and one answer tells is served: pictures and
tensors. Clips, which take longer than a request, are the business of ``paragonsr2 upscale --ray``.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paragonsr2.errors import MissingExtraError, OptionError
from paragonsr2.serve.limits import Limits
from paragonsr2.serve.models import Engine
from paragonsr2.serve.server import read_token
from paragonsr2.serve.service import Service

#: What :func:`build` takes, with its defaults.
DEFAULTS = {"replicas": "1", "cpus": "1", "gpus": "0", "device": "auto"}


def build(arguments: Mapping[str, str]) -> Any:
    """The application, for ``serve run`` and for Serve's configuration files.

    A token is read from the environment variable ``PARAGONSR2_TOKEN`` of each replica.

    Args:
        arguments: ``replicas``, a number or ``auto``; ``cpus`` and ``gpus`` of each; ``device``.

    Raises:
        MissingExtraError: Ray Serve is not installed.
        OptionError: an argument is unknown.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtraError("the service on a cluster (also: ray[serve])", "cluster") from error
    if unknown := sorted(set(arguments) - set(DEFAULTS)):
        raise OptionError(f"there is no {', '.join(unknown)}; give {', '.join(DEFAULTS)}")
    given = {**DEFAULTS, **arguments}
    device, replicas = given["device"], given["replicas"]

    def application() -> Any:
        return _service(device)

    wrapped: Any = serve.ingress(application)()
    deployment: Any = serve.deployment(
        wrapped,
        name="paragonsr2",
        num_replicas=replicas if replicas == "auto" else int(replicas),
        max_ongoing_requests=Limits.requests,
        ray_actor_options={"num_cpus": float(given["cpus"]), "num_gpus": float(given["gpus"])},
    )
    return deployment.bind()


def _service(device: str) -> Any:
    """The application of one replica; what it keeps on disk goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="paragonsr2-serve-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    limits = Limits(jobs=0)
    service = Service(
        folder, limits, Engine(device=device), local_only=False, token=read_token(None)
    )
    return service.app
