"""The address that a server listens on."""

from __future__ import annotations

import ipaddress
import socket

from paragonsr2.errors import UsageError


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Args:
        host: address to bind.
        port: port to bind; 0 chooses a free one.

    Raises:
        UsageError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
        # Its connections inherit this. Else an answer waits 40 ms between its headers and its body,
        # because asyncio does it only for sockets that name their protocol.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"cannot listen on {host} port {port} ({reason}); give another --host or --port"
        ) from error


def address_of(listener: socket.socket) -> str:
    """The address of a listening socket, as ``http://HOST:PORT``."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether ``host`` is a loopback address or name, which only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
