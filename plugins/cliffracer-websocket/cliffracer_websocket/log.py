"""`MemoryLog`: the history of one process; and what both kinds of log have."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Protocol

from .history import History
from .publication import Publication

__all__ = ["Log", "MemoryLog"]


class Log(Protocol):
    """Gives publications their offsets."""

    history: History
    epoch: str
    """Offsets of another epoch mean nothing."""

    async def append(self, group: str, data: bytes, key: str | None) -> None:
        """Keep a message and have it delivered."""


class MemoryLog:
    """Offsets of this process alone: a client that comes back to another replica is told that history is lost.

    Args:
        history: what is kept.
        deliver: hears each new publication.
    """

    def __init__(self, history: History, deliver: Callable[[Publication], None]) -> None:
        self.history = history
        self.epoch = uuid.uuid4().hex
        self._deliver = deliver

    async def append(self, group: str, data: bytes, key: str | None) -> None:
        """Keep a message and deliver it."""
        self.take(group, data, key)

    def take(self, group: str, data: bytes, key: str | None) -> None:
        """Keep a message and deliver it, at once."""
        publication = Publication(group, data, self.history.last + 1, key, time.time())
        self.history.append(publication)
        self._deliver(publication)
