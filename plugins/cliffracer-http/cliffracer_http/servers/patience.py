"""Close connections that keep a server waiting, at no cost per request: one timer looks at all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable
from typing import Protocol

from cliffracer_http.settings import HttpSettings

__all__ = ["Patience", "Waited", "period_of"]

Waited = tuple[float, Hashable]
"""For how many seconds a connection may stay as it is, and what changes once it moves on."""


class Connection(Protocol):
    """What can be waited for."""

    def waits(self) -> Waited | None:
        """Say what the server waits for at this connection; None while it waits for nothing."""

    def give_up(self) -> None:
        """Close it, whatever it was waited for."""


def period_of(settings: HttpSettings) -> float:
    """Return how often to look, in seconds: limits are kept to within a quarter, at most a second."""
    shortest = min(settings.header_timeout_s, settings.body_timeout_s, settings.send_timeout_s, settings.keep_alive_s)
    return min(1.0, shortest / 4)


class Patience:
    """Look at connections now and then, and close those that have stood still for too long.

    Args:
        connections: those that are open, at any time.
        period_s: seconds between two looks.
        on_look: called at each look.
    """

    def __init__(
        self, connections: Callable[[], Collection[Connection]], period_s: float, on_look: Callable[[], None]
    ) -> None:
        self._connections = connections
        self._period_s = period_s
        self._on_look = on_look
        self._loop = asyncio.get_running_loop()
        self._since: dict[Connection, tuple[Hashable, float]] = {}
        self._timer = self._loop.call_later(period_s, self._look)

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._period_s, self._look)
        self._on_look()
        now = self._loop.time()
        before, self._since = self._since, {}
        for connection in list(self._connections()):
            waited = connection.waits()
            if waited is None:
                continue
            limit_s, what = waited
            was, since = before.get(connection, (None, now))
            if was != what:
                since = now
            if now - since >= limit_s:
                connection.give_up()
            else:
                self._since[connection] = (what, since)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()
        self._since.clear()
