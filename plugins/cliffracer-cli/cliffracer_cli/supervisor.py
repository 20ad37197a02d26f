"""`Supervisor`: several workers kept running; `reload`: one, started anew when files change."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

from .failures import ExitCode
from .serving import listen_for_signals
from .worker import Worker

__all__ = ["Supervisor", "reload"]

logger = logging.getLogger("cliffracer.cli")

FIRST_BACKOFF_S = 0.1
MOST_BACKOFF_S = 10.0
STABLE_AFTER_S = 30.0
"""A worker that ran for so long is restarted without a longer pause."""

Start = Callable[[], Awaitable[Worker]]


class Supervisor:
    """Keep workers running until SIGTERM or SIGINT.

    A worker that ends is replaced, after a pause that doubles from 0.1 s to 10 s. One that ends before
    it, or a forerunner in its place, was ever ready stops all: what is wrong is wrong for each.

    Args:
        start: starts a worker.
        count: how many.
    """

    def __init__(self, start: Start, count: int) -> None:
        self._start = start
        self._count = count
        self._workers: dict[int, Worker] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Run; returns the exit code: 0 after SIGTERM, 130 after SIGINT, or the first failing worker's."""
        asked: list[int] = []

        def on_signal(number: int) -> None:
            asked.append(number)
            self._stopping.set()
            if len(asked) > 1:
                for worker in self._workers.values():
                    worker.kill()

        with listen_for_signals(on_signal):
            places = [asyncio.create_task(self._keep(place)) for place in range(self._count)]
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({*places, stopping}, return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            await asyncio.wait({*places, stopping})
        failed = next((place.result() for place in places if place.result()), ExitCode.OK)
        return failed or (ExitCode.INTERRUPTED if signal.SIGINT in asked else ExitCode.OK)

    async def _keep(self, place: int) -> int:
        """Keep one place filled; returns the exit code of its last worker."""
        loop = asyncio.get_running_loop()
        was_ready = False
        backoff_s = FIRST_BACKOFF_S
        while True:
            worker = self._workers[place] = await self._start()
            started = loop.time()
            code = await _ended(worker, self._stopping)
            if code is None:
                return await worker.stop()
            was_ready = was_ready or worker.ready.is_set()
            if not was_ready:
                return code or ExitCode.FAILED
            if loop.time() - started > STABLE_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            logger.warning("worker %d ended with exit code %d; another starts in %.1f s", worker.pid, code, backoff_s)
            try:
                async with asyncio.timeout(backoff_s):
                    await self._stopping.wait()
                return ExitCode.OK
            except TimeoutError:
                backoff_s = min(2 * backoff_s, MOST_BACKOFF_S)


async def _ended(worker: Worker, event: asyncio.Event) -> int | None:
    """Return the worker's exit code, or None where the event comes first."""
    ending = asyncio.create_task(worker.wait())
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({ending, waiting}, return_when=asyncio.FIRST_COMPLETED)
    ended = ending.done() and not event.is_set()
    for task in (ending, waiting):
        if not task.done():
            task.cancel()
    await asyncio.wait({ending, waiting})
    return ending.result() if ended else None


async def reload(start: Start, changes: AsyncIterator[set[str]]) -> int:
    """Run a worker, and another in its place after each change, until SIGTERM or SIGINT.

    Args:
        start: starts a worker.
        changes: yields the files that have changed; where a worker has ended, the next one starts it anew.

    Returns the exit code: 0 after SIGTERM, 130 after SIGINT.
    """
    asked: list[int] = []
    wake = asyncio.Event()
    worker: Worker | None = None

    def on_signal(number: int) -> None:
        asked.append(number)
        wake.set()
        if len(asked) > 1 and worker is not None:
            worker.kill()

    async def watch() -> None:
        async for files in changes:
            logger.info("changed: %s; starting again", ", ".join(sorted(files)))
            wake.set()

    with listen_for_signals(on_signal):
        watching = asyncio.create_task(watch())
        try:
            while not asked:
                wake.clear()
                worker = await start()
                code = await _ended(worker, wake)
                if code is None:
                    await worker.stop()
                else:
                    logger.warning("ended with exit code %d; waiting for a change", code)
                    await wake.wait()
        finally:
            watching.cancel()
            await asyncio.wait({watching})
    return ExitCode.INTERRUPTED if signal.SIGINT in asked else ExitCode.OK
