"""Deadlines: one event-loop timer for any number of them."""

from __future__ import annotations

import asyncio
import math
from typing import Generic, Protocol, TypeVar

__all__ = ["Deadlines", "Expiring"]

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
