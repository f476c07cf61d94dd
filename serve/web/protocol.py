"""HTTP/1.1 of uvicorn with a limit on the time in which the head of a request must arrive."""

import asyncio
from typing import Any

import h11  # pyright: ignore[reportMissingImports]
from uvicorn.protocols.http.h11_impl import H11Protocol  # pyright: ignore[reportMissingImports]

HEAD_SECONDS = 10.0
"""From the beginning of a connection, or of a further request on it, to the end of the request's headers."""


class TimedProtocol(H11Protocol):
    """Closes connections whose request does not arrive, which would otherwise take the place of others for ever.

    uvicorn itself limits only the time between two requests, and `Guard` that of a body.
    """

    head_seconds = HEAD_SECONDS
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: D102 - asyncio's
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._arm()
        else:
            self._disarm()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._disarm()
        super().connection_lost(exc)

    def _arm(self) -> None:
        """Start the clock, unless it runs."""
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self._end)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()
