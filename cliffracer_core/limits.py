"""How many calls run at once, and until when.

One timer serves all deadlines of a service; one gate per handler admits, queues or refuses.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

__all__ = ["Deadlines", "Expiring", "Gate", "Run"]

logger = logging.getLogger("cliffracer")

_TICK_S = 0.01


class Expiring(Protocol):
    """Something with a time limit."""

    deadline: float
    """Point on the loop's clock; infinity where there is none."""

    def expire(self) -> None:
        """Hear that the time is over; again each time others' are, until it moves its deadline or is removed."""


E = TypeVar("E", bound=Expiring)


class Deadlines(Generic[E]):
    """Expire what stays in `entries` past its deadline, with one event-loop timer for all of it.

    Adding and removing an entry is a dictionary operation, and `watch` mostly one comparison: only when
    the earliest deadline that was watched has come are the entries looked through, at most once in 10 ms.
    So a call that ends in time, as nearly all do, costs nothing here.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.entries: dict[object, E] = {}
        self.next_at = math.inf
        """When it will look next; `watch` only earlier deadlines."""
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, deadline: float) -> None:
        """Look through the entries when `deadline` has come, a point on the loop's clock."""
        if deadline < self.next_at:
            self.next_at = deadline
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline + 0.001, self._look)  # loops round to milliseconds

    def add(self, key: object, entry: E) -> None:
        """Watch an entry until `discard(key)`; it expires at most 12 ms late, and never early."""
        self.entries[key] = entry
        self.watch(entry.deadline)

    def discard(self, key: object) -> None:
        """Forget an entry; nothing happens where there is none."""
        self.entries.pop(key, None)

    def close(self) -> None:
        """Forget all."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.next_at = None, math.inf
        self.entries.clear()

    def _look(self) -> None:
        self._timer, self.next_at = None, math.inf
        now = self._loop.time()
        for entry in [each for each in self.entries.values() if each.deadline <= now]:
            entry.expire()
        later = [each.deadline for each in self.entries.values() if now < each.deadline < math.inf]
        if later:
            self.watch(max(min(later), now + _TICK_S))


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


class Gate:
    """Let at most `limit` calls of one handler run; the others wait in a bounded queue.

    `running` counts calls, `stuck` threads that still run for calls that were cancelled.
    """

    __slots__ = ("_loop", "_pumping", "limit", "running", "stuck", "waiting")

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self.limit = limit
        self.running = 0
        self.stuck = 0
        self.waiting: deque[Callable[[], None]] = deque()
        self._loop = loop
        self._pumping = False

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.running and not self.waiting

    def enter(self, start: Callable[[], None], queue_size: int) -> bool:
        """Run `start` now if there is a slot, later if there is room to wait; False if there is neither."""
        if self.take():
            start()
            return True
        return self.wait(start, queue_size)

    def take(self) -> bool:
        """Take a slot if one is free and nobody waits."""
        if self.waiting or self.running + self.stuck >= self.limit:
            return False
        self.running += 1
        return True

    def wait(self, start: Callable[[], None], queue_size: int) -> bool:
        """Queue `start` until there is a slot; False if `queue_size` wait already."""
        if len(self.waiting) >= queue_size:
            return False
        self.waiting.append(start)
        return True

    def leave(self) -> None:
        """Free a slot. Whoever waits starts from the event loop, not from the stack of the call that ended."""
        self.running -= 1
        if self.waiting and not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def refuse_waiting(self) -> None:
        """Start all who wait, limit or not: their service is closing, so each only hears of that."""
        while self.waiting:
            self.running += 1
            self.waiting.popleft()()

    def thread_stuck(self) -> None:
        """Keep a slot taken: the call was cancelled, its thread still runs."""
        self.stuck += 1

    def thread_ended(self) -> None:
        """Free the slot such a thread had."""
        self.stuck -= 1
        self._pump()

    def _pump(self) -> None:
        self._pumping = False
        while self.waiting and self.running + self.stuck < self.limit:
            self.running += 1
            self.waiting.popleft()()
