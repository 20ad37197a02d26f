"""Transport and store in memory, for scripts and tests, under the same contracts as any other.

Everything on one event loop with the same URL authority shares one broker and one set of keys:
`memory://` and `memory://bus` are two buses.
"""

from __future__ import annotations

from cliffracer_core.interfaces import StoreFactory, TransportFactory

from .broker import MemoryBroker
from .shared import made, shared, substitute
from .store import MemoryStore
from .transport import MemoryTransport

__all__ = ["STORES", "TRANSPORTS", "MemoryBroker", "MemoryStore", "MemoryTransport", "shared", "substitute"]

TRANSPORTS = (TransportFactory(schemes=("memory",), create=lambda url, service: made(MemoryTransport, url)),)
STORES = (StoreFactory(schemes=("memory",), create=lambda url, service: made(MemoryStore, url)),)
