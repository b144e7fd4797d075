"""Connections on which no request arrives are closed."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient_protocol(seconds: float) -> type[H11Protocol]:
    """The HTTP protocol of uvicorn; it closes a connection whose next request takes too long.

    uvicorn itself waits for ever for the headers of a request once a client is connected.

    Args:
        seconds: from the connection, or the first byte after an answer, to the end of the headers.
    """

    class PatientProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._forget()

        def _watch(self) -> None:
            if not self._idle():
                self._forget()
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self._give_up)

        def _give_up(self) -> None:
            self._timer = None
            if self._idle():
                self.transport.close()

        def _forget(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _idle(self) -> bool:
            cycle: Any = self.cycle  # None before the first request
            return cycle is None or cycle.response_complete

    return PatientProtocol
