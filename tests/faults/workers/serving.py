"""`serve`: run a service whose parent wants to know when it is ready, and must not be outlived."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence

import msgspec

from cliffracer_core import CliffracerService, ServiceInfo, hookimpl
from cliffracer_core.interfaces import Lifespan, Wiring

__all__ = ["Sign", "serve"]

EVERY_S = 0.002


class Sign(msgspec.Struct, frozen=True):
    """What a worker prints whenever `service.ready` has changed."""

    ready: bool
    at: float
    """Seconds on `time.monotonic()`."""


class Readiness:
    """A plugin that prints a `Sign` for each change, as a line of JSON."""

    service: CliffracerService

    @hookimpl
    def cliffracer_register_lifespans(self, service: ServiceInfo) -> Sequence[Lifespan]:
        """Watch from before the first handler listens until the last one has stopped."""
        return [self._watched]

    @contextlib.asynccontextmanager
    async def _watched(self, wiring: Wiring) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self) -> None:
        before = False
        while True:
            now = self.service.ready
            if now is not before:
                print(msgspec.json.encode(Sign(now, time.monotonic())).decode(), flush=True)
                before = now
            await asyncio.sleep(EVERY_S)


def _end_with_parent() -> None:
    os.read(0, 1)  # ends when the other end is closed, and with the parent it is
    os._exit(1)


def serve(service: type[CliffracerService]) -> None:
    """Run a service until SIGTERM, or until stdin is closed; blocks."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    readiness = Readiness()
    readiness.service = service(plugins={"readiness": readiness})
    readiness.service.run()
