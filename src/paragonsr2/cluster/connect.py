"""Joining a Ray cluster, or starting one for the time of a job."""

from __future__ import annotations

import os
import platform
import secrets
import signal
import sys
import threading
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

from paragonsr2.errors import ClusterError, MissingExtraError, UsageError
from paragonsr2.process import variable
from paragonsr2.upscale.resources import cores

_LOCAL, _AUTO, _CLIENT = "local", "auto", "ray://"

# Ray reads these when it is loaded. It passes messages of its daemons on to stdout of this process,
# where results belong.
_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}


@contextmanager
def connected(address: str) -> Generator[Any]:
    """Join a cluster for the time of a ``with`` statement.

    Args:
        address: ``local`` starts a cluster of this machine's cores, which ends with the
            statement; ``auto`` joins the one that this machine is part of; ``ray://HOST:PORT``
            joins from outside, and ``HOST:PORT`` from a machine in it.

    Yields:
        The module ``ray``, connected.

    Raises:
        UsageError: it is no address.
        MissingExtraError: Ray is not installed.
        ClusterError: the cluster cannot be reached, refuses the token, or has other versions.
    """
    check_address(address)
    with ExitStack() as variables:
        for name, value in _VARIABLES.items():
            variables.enter_context(variable(name, value))
        # A cluster runs the code of whoever reaches it, and other users reach this machine's.
        if address == _LOCAL and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
            variables.enter_context(variable("RAY_AUTH_MODE", "token"))
            variables.enter_context(variable("RAY_AUTH_TOKEN", secrets.token_hex(32)))
        ray = _import_ray()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address == _LOCAL:
            options |= {
                "address": _LOCAL,
                "num_cpus": cores(),
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
            }
        elif address.startswith(_CLIENT):
            options = {"address": address, "logging_level": "ERROR"}
        else:
            options["address"] = address
        with _own_signals():
            try:
                # What a warning says, the error says too.
                with warnings.catch_warnings(action="ignore"):
                    ray.init(**options)
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                ray.shutdown()
                raise _refused(ray, address, error) from error
        try:
            yield ray
        finally:
            ray.shutdown()


def check_address(address: str) -> None:
    """Refuse what is no address, before anything slow starts.

    Raises:
        UsageError: naming what is.
    """
    place = address.removeprefix(_CLIENT)
    host, _, port = place.rpartition(":")
    if address not in (_LOCAL, _AUTO) and not (host and port.isdigit() and "/" not in host):
        raise UsageError(f"--ray {address}: write local, auto or ray://HOST:PORT")


def _import_ray() -> Any:
    try:
        import ray

        # Methods of workers are marked before a client is connected, which cannot mark them so.
        import_module("paragonsr2.cluster.worker")
    except ImportError as error:
        raise MissingExtraError("a cluster (--ray)", "cluster") from error
    return ray


@contextmanager
def _own_signals() -> Generator[None]:
    """Keep the handler of SIGTERM, which Ray replaces when it connects."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refused(ray: Any, address: str, error: Exception) -> ClusterError:
    """Why a cluster cannot be joined, in one line, and what mends it."""
    text = " ".join(str(error).split())
    if "ersion mismatch" in text or "versions do not match" in text:
        return ClusterError(
            f"the cluster has other versions than Ray {ray.__version__} and Python "
            f"{platform.python_version()} here; install the same on every machine"
        )
    if isinstance(error, ray.exceptions.AuthenticationError) or "uthenticat" in text:
        return ClusterError(
            f"the cluster at {address} asks for its token; set RAY_AUTH_MODE=token and "
            f"RAY_AUTH_TOKEN_PATH to the file that holds it"
        )
    if address == _AUTO:
        return ClusterError(
            "no Ray cluster runs on this machine; start one (ray start --head), or use "
            "--ray local or --ray ray://HOST:PORT"
        )
    if address == _LOCAL:
        return ClusterError(f"Ray does not start here: {text[:200]}")
    client = "is its client server on (ray start --head --ray-client-server-port 10001)? And "
    client = client if address.startswith(_CLIENT) else ""
    return ClusterError(
        f"no Ray cluster answers at {address}; {client}does a firewall let this machine through? "
        f"If the cluster asks for a token: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
    )
