"""`Admission`: which sockets may open, and what each may send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from .absence import Ahead
from .codes import POLICY_VIOLATION, TOO_BIG
from .outbox import Outbox
from .settings import WebSocketSettings

__all__ = ["Admission", "Limited", "Refused"]

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]


class Refused(Exception):
    """A socket may not open: an HTTP status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Admission:
    """Count the sockets of one service, in all and by address.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: WebSocketSettings) -> None:
        self._settings = settings
        self._by_address: dict[str, int] = {}
        self.total = 0
        self.draining = False

    def enter(self, scope: Scope) -> None:
        """Count a socket in, until `leave`.

        Raises:
            Refused: it may not open.
        """
        settings = self._settings
        if self.draining:
            raise Refused(503, "the service stops; connect to another replica")
        self._check_origin(scope)
        address = _address(scope)
        if self.total >= settings.max_connections:
            raise Refused(503, "too many connections; try again later")
        if self._by_address.get(address, 0) >= settings.max_connections_per_address and address:
            raise Refused(429, "too many connections from one address; close some")
        self.total += 1
        self._by_address[address] = self._by_address.get(address, 0) + 1

    def leave(self, scope: Scope) -> None:
        """Count a socket out."""
        address = _address(scope)
        self.total -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def _check_origin(self, scope: Scope) -> None:
        """Refuse pages of other hosts: the browser sends their cookies. Source: RFC 6455, section 10.2."""
        allowed = self._settings.origins
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        if not given or "*" in allowed:
            return
        host = next((value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"), "")
        if not all(origin in allowed or _is_of(host, origin) for origin in given):
            raise Refused(403, "this origin may not connect; the service lists others in websocket.origins")


def _is_of(host: str, origin: str) -> bool:
    """Tell whether an origin is the host's own."""
    try:
        return bool(origin) and urlsplit(origin).netloc.lower() == host
    except ValueError:
        return False


def _address(scope: Scope) -> str:
    """Return the client's address; empty where it has none, as on a Unix socket, and then none is limited."""
    return scope["client"][0] if scope.get("client") else ""


class Limited:
    """A server's `receive`, limited: a message that is too long, or one too many, closes the socket.

    Args:
        receive: the server's.
        settings: the limits.
        outbox: the socket's.
    """

    __slots__ = ("_ahead", "_allowance", "_closed", "_last", "_outbox", "_receive", "_settings", "_waiter")

    def __init__(self, receive: Receive, settings: WebSocketSettings, outbox: Outbox) -> None:
        self._receive = receive
        self._settings = settings
        self._outbox = outbox
        self._allowance: float = settings.burst
        self._last = time.monotonic()
        self._ahead: Ahead | None = None
        self._waiter: asyncio.Task[Any] | None = None
        self._closed: dict[str, object] | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody waits for what the client sends, so that nobody would notice that it goes."""
        return self._ahead is None and self._waiter is None

    def read_ahead(self, gone: Callable[[], None]) -> None:
        """Read from now on before it is asked for, and call `gone` when the client has gone."""
        self._ahead = Ahead(self._receive, gone, self._settings.max_message_bytes)

    def stop(self, code: int, reason: str) -> None:
        """Wait for nothing any more, and say that the socket was closed with this code."""
        self._closed = _disconnect(code, reason)
        if self._ahead is not None:
            self._ahead.stop(self._closed)
        elif self._waiter is not None:
            self._waiter.cancel()

    @property
    def _too_often(self) -> str:
        return f"more than {self._settings.messages_per_s:g} messages a second"

    def afford(self, count: int) -> bool:
        """Count messages against what one client may send; False where the socket is closed for it."""
        now = time.monotonic()
        settings = self._settings
        earned = (now - self._last) * settings.messages_per_s
        self._allowance = min(settings.burst, self._allowance + earned) - count
        self._last = now
        if self._allowance < 0:
            self._outbox.close(POLICY_VIOLATION, self._too_often)
            return False
        return True

    def __call__(self) -> Awaitable[Any]:
        """Return the next event once it is there."""
        return self._next()

    async def _next(self) -> Any:
        if self._closed is not None and self._ahead is None:
            return self._closed
        self._waiter = task = asyncio.current_task()
        try:
            message = await (self._receive() if self._ahead is None else self._ahead.get())
        except asyncio.CancelledError:
            if self._closed is None or task is None or task.uncancel():
                raise
            return self._closed
        finally:
            self._waiter = None
        if message["type"] != "websocket.receive":
            return message
        settings = self._settings
        text = message.get("text")
        size = len(message.get("bytes") or b"") if text is None else len(text)
        if text is not None and settings.max_message_bytes >= size > settings.max_message_bytes // 4:
            size = len(text.encode())
        if size > settings.max_message_bytes:
            return _over(self._outbox, TOO_BIG, f"a message may have {settings.max_message_bytes} bytes")
        if not self.afford(1):
            return _disconnect(POLICY_VIOLATION, self._too_often)
        return message


def _over(outbox: Outbox, code: int, reason: str) -> dict[str, object]:
    outbox.close(code, reason)
    return _disconnect(code, reason)


def _disconnect(code: int, reason: str) -> dict[str, object]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}
