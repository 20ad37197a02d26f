"""`Load`: callers that call one after the other, and what came of each call."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from cliffracer_core.testing import eventually

__all__ = ["CALLERS", "Failure", "Load"]

T = TypeVar("T")

CALLERS = 64
WITHIN_S = 120.0


class Failure:
    """A call that raised; times are seconds on `time.monotonic()`."""

    def __init__(self, id: str, error: Exception, sent_at: float) -> None:
        self.id = id
        self.error = error
        self.sent_at = sent_at
        self.failed_at = time.monotonic()

    def __repr__(self) -> str:
        return f"{self.id}: {self.error!r} after {self.failed_at - self.sent_at:.3f} s"


class Load(Generic[T]):
    """Runs from `async with` until `stop`, or for `count` calls.

    Args:
        send: makes the call of that number under that id.
        prefix: what ids begin with.
        callers: how many call at the same time.
        count: how many calls in all; no end where None.
    """

    def __init__(
        self,
        send: Callable[[str, int], Awaitable[T]],
        prefix: str,
        *,
        callers: int = CALLERS,
        count: int | None = None,
    ) -> None:
        self.answers: dict[str, T] = {}
        """By the id of the call."""
        self.numbers: dict[str, int] = {}
        self.failures: list[Failure] = []
        self.slowest_s = 0.0
        """How long the slowest call with an answer took."""
        self._send = send
        self._prefix = prefix
        self._callers = callers
        self._count = count
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def done(self) -> int:
        """Calls that are over, one way or the other."""
        return len(self.answers) + len(self.failures)

    @property
    def errors(self) -> dict[str, int]:
        """How often each class of error was raised."""
        return dict(Counter(type(each.error).__name__ for each in self.failures))

    async def more(self, calls: int) -> None:
        """Return once so many more calls are over."""
        goal = self.done + calls
        await eventually(lambda: self.done >= goal, WITHIN_S)

    async def stop(self) -> None:
        """Begin no more calls, and return once those that run are over."""
        self._stopping = True
        await self.finish()

    async def finish(self) -> None:
        """Return once all calls are over."""
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*self._tasks)

    async def _call(self) -> None:
        while not self._stopping and (self._count is None or len(self.numbers) < self._count):
            number = len(self.numbers)
            id = f"{self._prefix}{number}"
            self.numbers[id] = number
            sent_at = time.monotonic()
            try:
                self.answers[id] = await self._send(id, number)
            except Exception as error:
                self.failures.append(Failure(id, error, sent_at))
            else:
                self.slowest_s = max(self.slowest_s, time.monotonic() - sent_at)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
