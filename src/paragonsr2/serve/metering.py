"""Bodies are counted as they arrive, and must arrive and leave at a least rate."""

from __future__ import annotations

import asyncio
import contextlib
import time

from starlette.types import Message, Receive, Send

from paragonsr2.errors import RefusedError
from paragonsr2.serve.limits import Limits

#: Most bytes of a refused body that are read before the answer, and most seconds that this takes. A
#: client that is still sending when the connection closes may never see the answer.
_DRAINED, _DRAINING = 1 << 20, 1.0


class BodyMeter:
    """Receives the body of one request.

    A length that the client states proves nothing: only what arrives counts.

    Args:
        receive: of the server.
        limits: size and least rate.

    Attributes:
        received: bytes so far.
        complete: the whole body has arrived.
    """

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._begun = time.monotonic()
        self.received, self.complete = 0, False

    async def __call__(self) -> Message:
        """The next message.

        Raises:
            RefusedError: the body is too large (413) or arrives too slowly (408).
        """
        if self.complete:
            return await self._receive()
        allowed = self._limits.patience + self.received / self._limits.least_rate
        try:
            async with asyncio.timeout(self._begun + allowed - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise RefusedError(
                408, f"the body arrives at less than {self._limits.least_rate:.0f} bytes a second"
            ) from None
        self.received += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self.received > self._limits.body_bytes:
            raise too_large(self._limits)
        return message

    async def drain(self, stated: int) -> None:
        """Read what is left of a small body, and drop it.

        Args:
            stated: length that the client states; 0 if it states none.
        """
        if stated - self.received > _DRAINED:
            return
        most = self.received + _DRAINED
        with contextlib.suppress(TimeoutError, RefusedError):
            async with asyncio.timeout(_DRAINING):
                while not self.complete and self.received <= most:
                    await self()


def too_large(limits: Limits) -> RefusedError:
    """The refusal of a body that is too large."""
    return RefusedError(
        413, f"the body is larger than {limits.body_bytes / 1e6:g} MB, the most that is taken"
    )


class PatientSend:
    """Sends, and gives up on a client who does not take what is sent.

    Args:
        send: of the server.
        limits: least rate.

    Attributes:
        gave_up: the client took too long; the answer is not complete.
    """

    def __init__(self, send: Send, limits: Limits) -> None:
        self._send, self._limits, self.gave_up = send, limits, False

    async def __call__(self, message: Message) -> None:
        """Send a message.

        Raises:
            TimeoutError: the client took too long.
        """
        size = len(message.get("body", b""))
        try:
            async with asyncio.timeout(self._limits.patience + size / self._limits.least_rate):
                await self._send(message)
        except TimeoutError:
            self.gave_up = True
            raise
