"""What the network sends to an application, for Hypercorn's protocols."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Self

from hypercorn.asyncio.task_group import TaskGroup, _handle

__all__ = ["Group", "Inbox"]

_BODY = ("http.request", "websocket.receive")


class Inbox:
    """A bounded queue of ASGI messages; the disconnect that ends each response frees who waits for space.

    Args:
        size: messages of a body that may wait.

    HTTP/2 bounds what a client may send by what was taken, and must not wait on one stream for another: it adds parts
    with `add`, and is told by `taken` of their bytes, once.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._messages: deque[Any] = deque()
        self._owed: deque[int] = deque()
        """For each message, the bytes to tell of when it is taken."""
        self.taken: Callable[[int], None] | None = None
        self._there = asyncio.Event()
        self._space = asyncio.Event()
        self._last: Any = None

    async def put(self, message: Any) -> None:
        """Add a message; a part of a body waits for space."""
        if self._last is not None:
            return
        if message["type"] not in _BODY:
            if message["type"].endswith("disconnect"):
                self._last = message
                self._space.set()
                self._tell(sum(self._owed))
                self._owed = deque([0] * len(self._owed))
        else:
            while len(self._messages) >= self._size and self._last is None:
                self._space.clear()
                await self._space.wait()
        self._append(message, 0)

    def add(self, body: bytes, size: int, *, more: bool) -> None:
        """Add a part of a body at once; `size` is what the client's window counts it as."""
        if self._last is not None:
            self._tell(size)
        elif len(self._messages) >= self._size and more:
            last = self._messages[-1]
            self._messages[-1] = {**last, "body": last["body"] + body}
            self._owed[-1] += size
        else:
            self._append({"type": "http.request", "body": body, "more_body": more}, size)

    def _append(self, message: Any, size: int) -> None:
        self._messages.append(message)
        self._owed.append(size)
        self._there.set()

    def _tell(self, size: int) -> None:
        if size and self.taken is not None:
            self.taken(size)

    async def get(self) -> Any:
        """Take the next message; the last one, a disconnect, again and again."""
        while not self._messages:
            if self._last is not None:
                return self._last
            self._there.clear()
            await self._there.wait()
        self._space.set()
        self._tell(self._owed.popleft())
        return self._messages.popleft()


class Group(TaskGroup):
    """Hypercorn's task group, whose applications have such an inbox."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Callable[[Any], Awaitable[None]]:
        """Run an application for a request or socket; returns what takes messages for it."""
        inbox = Inbox(config.max_app_queue_size)
        run = partial(self._loop.run_in_executor, None)
        self.spawn(_handle, app, config, scope, inbox.get, send, run, None)
        return inbox.put
