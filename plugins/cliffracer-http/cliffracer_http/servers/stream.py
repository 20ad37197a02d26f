"""A stream whose peer must read: bytes that it leaves lying for too long cut it off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

__all__ = ["Stream"]


class Stream(asyncio.StreamReaderProtocol):
    """asyncio's own, with a write timeout.

    Args:
        serve: called once with reader and writer.
        write_timeout_s: how long the write buffer may stay above its mark.
    """

    def __init__(
        self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None], write_timeout_s: float
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(asyncio.StreamReader(loop=loop), serve, loop=loop)
        self._write_timeout_s = write_timeout_s
        self._transport_: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport_ = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        self._transport_ = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the clock."""
        super().pause_writing()
        if self._timer is None and self._transport_ is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._write_timeout_s, self._transport_.abort)

    def resume_writing(self) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().resume_writing()

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
