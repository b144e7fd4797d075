"""Requests that a page of another site makes through the browser of somebody on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from paragonsr2.errors import RefusedError
from paragonsr2.serve.listening import is_loopback


def foreign(headers: Mapping[str, str], *, local_only: bool) -> RefusedError | None:
    """Why the request comes from another site; None if it does not.

    Args:
        headers: of the request, by lower-case name.
        local_only: the server listens on a loopback address. It then answers only to loopback host
            names, which defeats DNS rebinding.
    """
    host = headers.get("host", "")
    try:
        name, origin = urlsplit(f"//{host}").hostname or "", headers.get("origin")
        other = origin is not None and urlsplit(origin).netloc != host
    except ValueError:
        return RefusedError(400, "the Host or Origin header is not an address")
    if local_only and not is_loopback(name):
        return RefusedError(421, "this server answers only to localhost")
    if other:
        return RefusedError(403, "another site's page may not use this one")
    return None
