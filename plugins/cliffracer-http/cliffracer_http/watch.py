"""Cancel requests whose client has gone away, at next to no cost for the others.

To notice, somebody must wait in ASGI's `receive`, which takes a task. So only requests that have run for a
while get one: a timer that all share looks after them ten times a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

__all__ = ["Inbox", "Watch"]

PERIOD_S = 0.1


Task = asyncio.Task[Any]


class Watch:
    """The running requests of one service, by their tasks."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._young: dict[Task, Any] = {}
        """Those that began within the last period, and their `receive`."""
        self._old: dict[Task, Any] = {}
        self._watchers: dict[Task, asyncio.Task[None]] = {}
        self._gone: set[Task] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, receive: Any) -> Task:
        """Watch over the current task's request, whose body has been read, until `end` is given the task."""
        task = asyncio.current_task(self._loop)
        assert task is not None, "a request runs in a task"
        self._young[task] = receive
        if self._timer is None:
            self._timer = self._loop.call_later(PERIOD_S, self._look)
        return task

    def end(self, task: Task) -> None:
        """Let a request go; safe to call twice, and needed before its response ends."""
        if self._young.pop(task, None) is None and self._old.pop(task, None) is not None:
            watcher = self._watchers.pop(task, None)
            if watcher is not None:
                watcher.cancel()

    def is_gone(self, task: Task) -> bool:
        """Tell whether a request was cancelled because its client went away, and forget that."""
        if task not in self._gone:
            return False
        self._gone.discard(task)
        return True

    def _look(self) -> None:
        for task, receive in self._old.items():
            if task not in self._watchers:
                self._watchers[task] = self._loop.create_task(self._wait(task, receive))
        self._old |= self._young
        self._young = {}
        self._timer = self._loop.call_later(PERIOD_S, self._look) if self._old else None

    async def _wait(self, task: Task, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if task in self._old:
            self._gone.add(task)
            task.cancel()


class Inbox:
    """A `receive` that a handler and the watch share: what the watch takes first, the handler gets.

    Args:
        receive: the server's.
    """

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._next: asyncio.Task[Any] | None = None
        self._kept: deque[Any] = deque()
        self._given: Any = None
        self._asking = False

    async def __call__(self) -> Any:
        """Return the next message, as the server's own would."""
        if self._kept:
            return self._kept.popleft()
        self._asking = True
        try:
            message = self._given = await self._take()
        finally:
            self._asking = False
        return message

    async def watch(self) -> Any:
        """Return the next message, and keep it for the handler; of a body at most one part is read ahead."""
        while self._kept and self._kept[-1].get("more_body", False):
            await asyncio.sleep(PERIOD_S)
        message = await self._take()
        if not self._asking and message is not self._given:
            self._kept.append(message)
        return message

    async def _take(self) -> Any:
        if self._next is None or self._next.done():
            self._next = asyncio.ensure_future(self._receive())
        return await asyncio.shield(self._next)

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._next is not None:
            self._next.cancel()
