"""Cancel requests whose client has gone away, at next to no cost for the others.

To notice, somebody must wait in ASGI's `receive`, which takes a task. So only requests that have run for a
while get one: a timer that all share looks after them ten times a second.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Inbox", "Watch", "Watched"]

PERIOD_S = 0.1


class Watched:
    """One running request."""

    __slots__ = ("gone", "over", "receive", "round", "task", "watcher")

    def __init__(self, task: asyncio.Task[Any] | None, receive: Any, round: int) -> None:
        self.task = task
        self.receive = receive
        self.round = round
        self.gone = False
        """Its client went away, and it was cancelled for that."""
        self.over = False
        self.watcher: asyncio.Task[None] | None = None


class Watch:
    """The running requests of one address."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running: dict[Watched, None] = {}
        self._round = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, receive: Any) -> Watched:
        """Watch over the current task's request, whose body has been read, until `end`."""
        watched = Watched(asyncio.current_task(self._loop), receive, self._round)
        self._running[watched] = None
        if self._timer is None:
            self._timer = self._loop.call_later(PERIOD_S, self._look)
        return watched

    def end(self, watched: Watched) -> None:
        """Let a request go; safe to call twice, and needed before its response ends."""
        if not watched.over:
            watched.over = True
            del self._running[watched]
            if watched.watcher is not None:
                watched.watcher.cancel()

    def _look(self) -> None:
        self._round += 1
        for watched in self._running:
            if watched.round >= self._round - 1:
                break  # it, and all after it, began within the last period
            if watched.watcher is None:
                watched.watcher = self._loop.create_task(_wait(watched))
        self._timer = self._loop.call_later(PERIOD_S, self._look) if self._running else None


async def _wait(watched: Watched) -> None:
    while True:
        message = await watched.receive()
        if message["type"] == "http.disconnect":
            break
    if not watched.over and watched.task is not None:
        watched.gone = True
        watched.task.cancel()


class Inbox:
    """A `receive` that a handler and the watch share: what the watch takes first, the handler gets.

    Args:
        receive: the server's.
    """

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._next: asyncio.Task[Any] | None = None
        self._kept: Any = None
        self._given: Any = None
        self._asking = False

    async def __call__(self) -> Any:
        """Return the next message, as the server's own would."""
        if self._kept is not None:
            message, self._kept = self._kept, None
            return message
        self._asking = True
        try:
            message = self._given = await self._take()
        finally:
            self._asking = False
        return message

    async def watch(self) -> Any:
        """Return the next message, and keep it for the handler, which must have read the one before."""
        while self._kept is not None:
            await asyncio.sleep(PERIOD_S)
        message = await self._take()
        if not self._asking and message is not self._given:
            self._kept = message
        return message

    async def _take(self) -> Any:
        if self._next is None or self._next.done():
            self._next = asyncio.ensure_future(self._receive())
        return await asyncio.shield(self._next)

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._next is not None:
            self._next.cancel()
