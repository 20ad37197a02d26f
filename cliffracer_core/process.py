"""Several services in one process, and the signals that stop them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Protocol, Self

from .errors import describe

__all__ = ["ServiceOrchestrator", "run_until_signal"]

logger = logging.getLogger("cliffracer")


class Startable(Protocol):
    """What an orchestrator runs."""

    name: str

    async def start(self) -> None:
        """Start."""

    async def stop(self) -> None:
        """Stop."""


class ServiceOrchestrator:
    """Run services together: started in the order given, stopped one by one in reverse.

    Args:
        *services: unstarted services.
    """

    def __init__(self, *services: Startable) -> None:
        self.services: list[Startable] = list(services)
        self._started: list[Startable] = []

    def add_service(self, service: Startable) -> None:
        """Add one before `start`."""
        self.services.append(service)

    async def start(self) -> None:
        """Start all; where one fails, those before it are stopped and its error raised."""
        try:
            for service in self.services:
                await service.start()
                self._started.append(service)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop those that run, in reverse order; one that fails is logged, and the next one stops."""
        while self._started:
            service = self._started.pop()
            try:
                await service.stop()
            except Exception as error:
                logger.error("service %r did not stop: %s", service.name, describe(error))

    def run(self) -> None:
        """Start, run until SIGTERM or SIGINT, stop; blocks."""
        asyncio.run(run_until_signal(self))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()


class _Runnable(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


async def run_until_signal(runnable: _Runnable, on_ready: Callable[[], None] = lambda: None) -> int:
    """Start, wait for SIGTERM or SIGINT, stop; a second signal ends the process at once.

    Args:
        runnable: a service or an orchestrator.
        on_ready: called once it has started.

    Returns:
        The signal's number.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[int] = loop.create_future()

    def on_signal(number: int) -> None:
        if asked.done():
            os._exit(128 + number)
        logger.info("stopping on %s", signal.Signals(number).name)
        asked.set_result(number)
        if not started and task is not None:
            task.cancel()

    task, started = asyncio.current_task(), False
    installed = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows, or not the main thread
            loop.add_signal_handler(number, on_signal, number)
            installed.append(number)
    try:
        await runnable.start()
        started = True
        on_ready()
        return await asked
    except asyncio.CancelledError:
        if not asked.done():
            raise
        return asked.result()
    finally:
        if started:
            await runnable.stop()
        for number in installed:
            loop.remove_signal_handler(number)
