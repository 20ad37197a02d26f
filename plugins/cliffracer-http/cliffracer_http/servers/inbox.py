"""What the network sends to an application, for Hypercorn's protocols."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from hypercorn.asyncio.task_group import TaskGroup, _handle

__all__ = ["Group", "Inbox"]

_BODY = ("http.request", "websocket.receive")


class Inbox:
    """A bounded queue of ASGI messages that never makes a connection wait for an application that is done.

    Args:
        size: messages of a body that may wait.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._messages: deque[Any] = deque()
        self._there = asyncio.Event()
        self._space = asyncio.Event()
        self._last: Any = None
        self._closed = False

    async def put(self, message: Any) -> None:
        """Add a message; a part of a body waits for space."""
        if self._closed or self._last is not None:
            return
        if message["type"] not in _BODY:
            if message["type"].endswith("disconnect"):
                self._last = message
                self._space.set()
        else:
            while len(self._messages) >= self._size and not self._closed and self._last is None:
                self._space.clear()
                await self._space.wait()
        self._messages.append(message)
        self._there.set()

    async def get(self) -> Any:
        """Take the next message; the last one, a disconnect, again and again."""
        while not self._messages:
            if self._last is not None:
                return self._last
            self._there.clear()
            await self._there.wait()
        self._space.set()
        return self._messages.popleft()

    def close(self) -> None:
        """Take no more: nobody will read it."""
        self._closed = True
        self._messages.clear()
        self._space.set()


class Group(TaskGroup):
    """Hypercorn's task group, whose applications have such an inbox."""

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Callable[[Any], Awaitable[None]]:
        """Run an application for a request or socket; returns what takes messages for it."""
        inbox = Inbox(config.max_app_queue_size)

        async def closing(scope: Any, receive: Any, send: Any, *rest: Any) -> None:
            try:
                await app(scope, receive, send, *rest)
            finally:
                inbox.close()

        run = partial(self._loop.run_in_executor, None)
        self.spawn(_handle, closing, config, scope, inbox.get, send, run, None)
        return inbox.put
