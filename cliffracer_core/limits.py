"""How many calls run at once, and until when.

One timer serves all deadlines of a service; one gate per handler admits, queues or refuses.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable

__all__ = ["Deadlines", "Gate", "Run"]

logger = logging.getLogger("cliffracer")

_PER_SECOND = 100  # deadlines fire at most 10 ms late


class Deadlines:
    """Call functions at points in time, with one event-loop timer for all of them.

    Entries live in buckets of 10 ms, so adding and removing one costs two dictionary operations however
    many there are; a heap orders the buckets. A bucket that was emptied keeps its place, not its table.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, dict[object, Callable[[], None]] | None] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, when: float, token: object, callback: Callable[[], None]) -> int:
        """Call `callback` at loop time `when`; `discard` with the returned bucket and `token` takes it back."""
        number = int(when * _PER_SECOND) + 1
        bucket = self._buckets.get(number)
        if bucket is None:
            if number not in self._buckets:
                heapq.heappush(self._order, number)
            bucket = self._buckets[number] = {}
            if self._order[0] == number:
                self._arm()
        bucket[token] = callback
        return number

    def discard(self, bucket: int, token: object) -> None:
        """Forget an entry; nothing happens where it has fired."""
        entries = self._buckets.get(bucket)
        if entries is not None:
            entries.pop(token, None)
            if not entries:
                self._buckets[bucket] = None

    def close(self) -> None:
        """Forget all."""
        if self._timer is not None:
            self._timer.cancel()
        self._buckets.clear()
        self._order.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._order[0] / _PER_SECOND, self._fire) if self._order else None

    def _fire(self) -> None:
        now = int(self._loop.time() * _PER_SECOND + 0.001)
        while self._order and self._order[0] <= now:
            for callback in (self._buckets.pop(heapq.heappop(self._order)) or {}).values():
                callback()
        self._arm()


class Run:
    """One call while it runs: what can stop it, and why it was stopped."""

    __slots__ = ("reason", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[object] | None = None
        self.reason: str | None = None

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
