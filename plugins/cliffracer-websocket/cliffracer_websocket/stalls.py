"""`Sweep`: what looks, now and then, after clients that take nothing, and history that is too old."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .outbox import Outbox

__all__ = ["Sweep"]

_EVERY_S = 0.5


class Sweep:
    """Cut off clients that have been waited for too long.

    Args:
        stalled: those that are waited for.
        timeout_s: how long that may last.
        expire: forgets what is too old.
    """

    def __init__(self, stalled: set[Outbox], timeout_s: float, expire: Callable[[], None]) -> None:
        self._stalled = stalled
        self._timeout_s = timeout_s
        self._expire = expire
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_EVERY_S)
            oldest = loop.time() - self._timeout_s
            for outbox in [each for each in self._stalled if each.since < oldest]:
                outbox.forget()
                if outbox.abort is not None:
                    outbox.abort()
            self._expire()
