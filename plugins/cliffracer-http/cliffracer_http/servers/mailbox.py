"""What a connection holds for a running application: parts of the request's body, and that the client is gone."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

__all__ = ["Mailbox"]

HIGH_WATER_BYTES = 64 * 1024


class Mailbox:
    """A queue of ASGI messages, bounded by bytes; a disconnect overtakes all and lets those who wait go.

    Hypercorn's own is bounded by messages, and the disconnect stands in line like any other: a connection
    whose request was answered before its body was read never ends.
    """

    def __init__(self) -> None:
        self._messages: deque[Any] = deque()
        self._bytes = 0
        self._last: Any = None
        self._getter: asyncio.Future[None] | None = None
        self._putter: asyncio.Future[None] | None = None

    async def put(self, message: Any) -> None:
        """Add a message; waits while there is too much unread."""
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            self._last = message
            if message["type"] == "http.disconnect":
                self._messages.clear()
            self._bytes = 0
            self._wake()
            return
        while self._bytes > HIGH_WATER_BYTES and self._last is None:
            self._putter = asyncio.get_running_loop().create_future()
            await self._putter
        if self._last is not None:
            return
        self._messages.append(message)
        self._bytes += _size(message)
        self._wake()

    def _wake(self) -> None:
        for waiting in (self._getter, self._putter if self._bytes <= HIGH_WATER_BYTES else None):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    async def get(self) -> Any:
        """Return the next message; after a disconnect always that one."""
        while not self._messages:
            if self._last is not None:
                return self._last
            getter = self._getter
            if getter is None or getter.done():
                getter = self._getter = asyncio.get_running_loop().create_future()
            await asyncio.shield(getter)
        message = self._messages.popleft()
        self._bytes -= _size(message)
        self._wake()
        return message


def _size(message: Any) -> int:
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")
