"""Running a relay beside a service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from cliffracer_core.interfaces import Wiring

from .database import Database
from .outbox import Outbox
from .relay import Relay
from .settings import DbSettings

__all__ = ["relayed"]

_LAST_BATCH_S = 2.0


@contextlib.asynccontextmanager
async def relayed(db: Database, settings: DbSettings, wiring: Wiring) -> AsyncIterator[None]:
    """Make the outbox's table where it is missing, and send what is in it for the length of a block."""
    outbox = Outbox(db, wiring.service.name)
    await outbox.prepare()
    relay = Relay(outbox, wiring.transports, settings, holder=wiring.service.id)
    task = asyncio.create_task(relay.run(), name=f"outbox of {wiring.service.name}")
    try:
        yield
    finally:
        relay.stop()
        await asyncio.wait({task}, timeout=_LAST_BATCH_S)
        task.cancel()
        await asyncio.wait({task})
