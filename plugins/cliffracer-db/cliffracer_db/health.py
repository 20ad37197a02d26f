"""What `service.health()` says of the database."""

from __future__ import annotations

from collections.abc import Mapping

from cliffracer_core.interfaces import ServiceInfo

from .database import Database
from .pool import is_used
from .settings import settings_of

__all__ = ["health_of"]


async def health_of(service: ServiceInfo) -> Mapping[str, object] | None:
    """Return whether the service's database answers, how fast, and how busy its pool is; None where it has none.

    Raises:
        DatabaseError: it does not answer.
    """
    settings = settings_of(service)
    if not is_used(settings):
        return None
    async with Database(settings) as database:
        latency_ms = await database.ping()
        figures = database.statistics()
    kept = ("pool_size", "pool_available", "requests_waiting")
    return {"connected": True, "latency_ms": round(latency_ms, 3), **{name: figures.get(name, 0) for name in kept}}
