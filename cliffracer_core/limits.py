"""A call while it runs, and how many run at once: one gate per handler admits, queues or refuses."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["Gate", "Run", "Waiting"]

logger = logging.getLogger("cliffracer")


class Run(msgspec.Struct, eq=False):
    """One call while it runs: what can stop it, and why it was stopped."""

    deadline: float = math.inf
    """Point on the loop's clock at which it is cancelled."""
    reason: str | None = None
    task: asyncio.Task[object] | None = None
    """Set once the call waits for something: only then can anything stop it."""
    key: object = None
    """What it is found by among the running calls."""
    over: bool = False

    def stop(self, reason: str) -> None:
        """Cancel the call; the first reason counts."""
        if self.reason is None and self.task is not None and not self.task.done():
            self.reason = reason
            self.task.cancel()

    def expire(self) -> None:
        """Cancel the call because its time has run out."""
        self.stop("deadline")


class Waiting(msgspec.Struct, eq=False, gc=False):
    """One who waits for a slot; tens of thousands may, and the garbage collector need not look at any."""

    start: Callable[[Any, float], object]
    what: Any = None
    since: float = 0.0
    """When it came, on `time.monotonic()`, where that matters."""


class Gate:
    """Let at most `limit` calls of one handler run; the others wait in a bounded queue.

    `free` counts slots; one is taken by each call that runs and by each thread that still runs for a call
    that was cancelled, which are `stuck`.
    """

    __slots__ = ("_loop", "_pumping", "free", "limit", "stuck", "waiting")

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self.limit = limit
        self.free = limit
        self.stuck = 0
        self.waiting: deque[Waiting] = deque()
        self._loop = loop
        self._pumping = False

    @property
    def running(self) -> int:
        """Calls that run."""
        return self.limit - self.free - self.stuck

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.running and not self.waiting

    def enter(self, waiting: Waiting, queue_size: int) -> bool:
        """Start it now if there is a slot, later if there is room to wait; False if there is neither."""
        if self.take():
            waiting.start(waiting.what, waiting.since)
            return True
        return self.wait(waiting, queue_size)

    def take(self) -> bool:
        """Take a slot if one is free and nobody waits."""
        if self.free <= 0 or self.waiting:
            return False
        self.free -= 1
        return True

    def wait(self, waiting: Waiting, queue_size: int) -> bool:
        """Start it when there is a slot; False if `queue_size` wait already."""
        if len(self.waiting) >= queue_size:
            return False
        self.waiting.append(waiting)
        return True

    def leave(self) -> None:
        """Free a slot. Whoever waits starts from the event loop, not from the stack of the call that ended."""
        self.free += 1
        if self.waiting and not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def refuse_waiting(self) -> None:
        """Start all who wait, limit or not: their service is closing, so each only hears of that."""
        while self.waiting:
            self.free -= 1
            next = self.waiting.popleft()
            next.start(next.what, next.since)

    def thread_stuck(self) -> None:
        """Keep a slot taken: the call was cancelled, its thread still runs."""
        self.stuck += 1
        self.free -= 1

    def thread_ended(self) -> None:
        """Free the slot such a thread had."""
        self.stuck -= 1
        self.free += 1
        self._pump()

    def _pump(self) -> None:
        self._pumping = False
        while self.waiting and self.free > 0:
            self.free -= 1
            next = self.waiting.popleft()
            next.start(next.what, next.since)
