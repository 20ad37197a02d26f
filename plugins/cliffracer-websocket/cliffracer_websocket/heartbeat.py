"""`Heartbeat`: pings of the Centrifuge protocol, which its clients must answer."""

from __future__ import annotations

import asyncio

from .outbox import Outbox
from .protocol import NO_PONG, PING
from .settings import WebSocketSettings

__all__ = ["Heartbeat"]


class Heartbeat:
    """Ping one client, and close its socket where it does not answer.

    Args:
        outbox: the client's way out.
        settings: how often, and how long an answer may take.
    """

    def __init__(self, outbox: Outbox, settings: WebSocketSettings) -> None:
        self._outbox = outbox
        self._timeout_s = settings.ping_timeout_s
        self.interval_s = max(1, round(settings.ping_interval_s))
        """Whole seconds, as the protocol tells its clients."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Ping from now on."""
        self._timer = asyncio.get_running_loop().call_later(self.interval_s, self._ping)

    def heard(self) -> None:
        """Take an answer."""
        if self._timer is not None:
            self._timer.cancel()
            self.start()

    def stop(self) -> None:
        """Ping no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ping(self) -> None:
        self._outbox.push(PING)
        self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._outbox.close, NO_PONG, "no pong")
