"""Cancel requests whose client has gone away, or does not send its body, at next to no cost for the others.

To notice, somebody must wait in ASGI's `receive`, which takes a task. So only requests that have run for a
while get one: a timer that all share looks after them ten times a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from .errors import RequestTimeout

__all__ = ["Inbox", "Watch"]

PERIOD_S = 0.1


Task = asyncio.Task[Any]


class Watch:
    """The running requests of one service, by their tasks.

    Args:
        body_timeout_s: for the first part of a body.
    """

    def __init__(self, body_timeout_s: float = 20.0) -> None:
        self.loop = asyncio.get_running_loop()
        self._round = 0
        self._patience = max(1, round(body_timeout_s / PERIOD_S)) + 1
        self._reading: dict[Task, int] = {}
        """Those that wait for their body, and the round in which they began."""
        self._late: set[Task] = set()
        self._young: dict[Task, Any] = {}
        """Those that began within the last period, and their `receive`."""
        self._old: dict[Task, Any] = {}
        self._watchers: dict[Task, asyncio.Task[None]] = {}
        self._gone: set[Task] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: Task, receive: Any) -> None:
        """Watch over a task's request, whose body has been read, until `end` is given the task."""
        self._young[task] = receive
        if self._timer is None:
            self._timer = self.loop.call_later(PERIOD_S, self._look)

    async def first(self, task: Task, receive: Any) -> Any:
        """Return the first message of a request.

        Raises:
            RequestTimeout: it did not come in time.
        """
        self._reading[task] = self._round
        if self._timer is None:
            self._timer = self.loop.call_later(PERIOD_S, self._look)
        try:
            return await receive()
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise RequestTimeout("the request's body did not come in time; send it faster") from None
        finally:
            del self._reading[task]
            self._late.discard(task)

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
        self._round += 1
        for task, began in self._reading.items():
            if began + self._patience > self._round:
                break  # as did all after it
            if task not in self._late:
                self._late.add(task)
                task.cancel()
        for task, receive in self._old.items():
            if task not in self._watchers:
                self._watchers[task] = self.loop.create_task(self._wait(task, receive))
        self._old |= self._young
        self._young = {}
        self._timer = self.loop.call_later(PERIOD_S, self._look) if self._old or self._reading else None

    async def _wait(self, task: Task, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if task in self._old:
            self._gone.add(task)
            task.add_done_callback(self._gone.discard)  # a handler may end with an error of its own
            task.cancel()


class Inbox:
    """A `receive` that a handler and the watch share: what the watch takes first, the handler gets.

    Args:
        receive: the server's.
        body: of the request, where it has been read already.
    """

    def __init__(self, receive: Any, body: bytes | None = None) -> None:
        self._receive = receive
        self._messages: deque[Any] = deque()
        if body is not None:
            self._messages.append({"type": "http.request", "body": body, "more_body": False})
        self._changed = asyncio.Event()
        self._asked: asyncio.Task[Any] | None = None
        self._error: BaseException | None = None
        self._gone = False

    async def __call__(self) -> Any:
        """Return the next message, or raise, as the server's own would."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            await self._next()
        return self._messages.popleft()

    async def watch(self) -> Any:
        """Return when the client has gone; of a body at most one part is read ahead."""
        while not self._gone:
            if self._error is not None or (self._messages and self._messages[-1].get("more_body", False)):
                await asyncio.sleep(PERIOD_S)
            else:
                await self._next()
        return {"type": "http.disconnect"}

    async def _next(self) -> None:
        if self._asked is None:
            self._asked = asyncio.ensure_future(self._receive())
            self._asked.add_done_callback(self._on_message)
        self._changed.clear()
        await self._changed.wait()

    def _on_message(self, asked: asyncio.Task[Any]) -> None:
        self._asked = None
        if asked.cancelled():
            return
        self._error = asked.exception()
        if self._error is None:
            self._messages.append(asked.result())
            self._gone = self._gone or asked.result()["type"] == "http.disconnect"
        self._changed.set()

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._asked is not None:
            self._asked.cancel()
