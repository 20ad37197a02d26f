"""`Tally`: counts what a handler receives, message by message, and keeps the time."""

from __future__ import annotations

import asyncio
import os
import time

from .payload import FIRST, Numbered

__all__ = ["Tally"]


class Tally:
    """Call it with each message. Numbers run from `FIRST` and begin again after `ring` of them.

    Args:
        ring: how many different numbers there are.
        step: the time is taken once in so many messages.
        acks: file descriptor that gets one byte each `step` messages, so that the publisher can pace itself.
    """

    def __init__(self, ring: int, step: int, acks: int | None = None) -> None:
        self.count = 0
        self._seen = [0] * ring
        self._step = step
        self._next = step
        self._acks = acks
        self._stamps: list[float] = []

    def __call__(self, item: Numbered) -> None:
        self._seen[item.number - FIRST] += 1
        self.count += 1
        if self.count == self._next:
            self._stamp()

    def _stamp(self) -> None:
        self._next += self._step
        self._stamps.append(time.perf_counter())
        if self._acks is not None:
            os.write(self._acks, b"+")

    async def expect(self, total: int, within_s: float) -> None:
        """Wait until `total` have come, and check that each came exactly once.

        Raises:
            ValueError: some are missing, or came twice.
        """
        until = time.monotonic() + within_s
        while self.count < total and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.05)  # time for one too many to show
        laps, rest = divmod(total, len(self._seen))
        wrong = [n for n, times in enumerate(self._seen) if times != laps + (n < rest)]
        if wrong or self.count != total:
            raise ValueError(f"{self.count} of {total} messages came; wrong are {len(wrong)}, such as {wrong[:5]}")

    def rate(self) -> float:
        """Return messages per second over the last four fifths, the first fifth being warm-up."""
        warm = len(self._stamps) // 5
        stamps = self._stamps[warm:]
        if len(stamps) < 4:
            raise ValueError(f"{self.count} messages are too few for a rate; give more --seconds")
        return (len(stamps) - 1) * self._step / (stamps[-1] - stamps[0])
