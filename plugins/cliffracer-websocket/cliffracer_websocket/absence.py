"""Clients that go while their handler does something else than receive: it is told, and at last ended.

To notice, somebody must wait in ASGI's `receive`. Most handlers do; for one that does not, a task reads ahead,
within bounds, and what it reads the handler gets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .socket import WebSocket

__all__ = ["Absence", "Ahead"]

_EVERY_S = 0.5


class Ahead:
    """Reads a socket's messages before its handler asks for them.

    Args:
        receive: the server's.
        gone: called when the client has gone.
        max_bytes: past which it reads no further until the handler does.
    """

    def __init__(self, receive: Callable[[], Awaitable[Any]], gone: Callable[[], None], max_bytes: int) -> None:
        self._receive = receive
        self._gone = gone
        self._max_bytes = max_bytes
        self._messages: deque[Any] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._error: Exception | None = None
        self._task = asyncio.create_task(self._read())

    async def get(self) -> Any:
        """Return the next message, or raise, as the server's own would."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        message = self._messages.popleft()
        self._bytes -= _size(message)
        self._changed.set()
        return message

    def stop(self, last: Any) -> None:
        """Read no more; after what was read comes this."""
        self._task.cancel()
        self._messages.append(last)
        self._changed.set()

    async def _read(self) -> None:
        try:
            while True:
                while self._bytes > self._max_bytes:
                    self._changed.clear()
                    await self._changed.wait()
                message = await self._receive()
                self._messages.append(message)
                self._bytes += _size(message)
                self._changed.set()
                if message["type"] == "websocket.disconnect":
                    break
        except Exception as error:
            self._error = error
            self._changed.set()
        self._gone()


class Absence:
    """Look after the sockets whose handlers keep them.

    Args:
        patience_s: for which a handler may go on whose client has gone.
        release: takes a socket out of its groups.
    """

    def __init__(self, patience_s: float, release: Callable[[WebSocket], None]) -> None:
        self._patience_s = patience_s
        self._release = release
        self._watched: set[WebSocket] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._ends: dict[WebSocket, asyncio.TimerHandle] = {}

    def begin(self, websocket: WebSocket) -> None:
        """Watch a socket."""
        self._watched.add(websocket)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._look)

    def end(self, websocket: WebSocket) -> None:
        """Watch it no more; its handler is done."""
        self._watched.discard(websocket)
        timer = self._ends.pop(websocket, None)
        if timer is not None:
            timer.cancel()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for each in self._watched:
            if each.outbox.closed:
                if each not in self._ends:
                    self._ends[each] = loop.call_later(self._patience_s, each.leave)
            elif each.open and each.incoming.idle:
                each.incoming.read_ahead(lambda each=each: self._gone(each))  # type: ignore[misc]  # bound early
        self._timer = loop.call_later(_EVERY_S, self._look) if self._watched else None

    def _gone(self, websocket: WebSocket) -> None:
        websocket.outbox.forget()
        self._release(websocket)


def _size(message: Any) -> int:
    return len(message.get("text") or message.get("bytes") or "")
