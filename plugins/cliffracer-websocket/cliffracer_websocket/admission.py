"""`Admission`: which sockets may open, and what each may send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from cliffracer_core.messages import JSON

from .codes import POLICY_VIOLATION, TOO_BIG
from .outbox import Outbox
from .settings import WebSocketSettings

__all__ = ["Admission", "Refused", "deny", "limited"]

Scope = Mapping[str, Any]
_GONE_S = 0.5
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

    @contextlib.contextmanager
    def counted(self, scope: Scope) -> Iterator[None]:
        """Count a socket while it is open.

        Raises:
            Refused: it may not open.
        """
        settings = self._settings
        if self.draining:
            raise Refused(503, "the service stops; connect to another replica")
        self._check_origin(scope)
        address = scope["client"][0] if scope.get("client") else None
        if self.total >= settings.max_connections:
            raise Refused(503, "too many connections; try again later")
        if address is not None and self._by_address.get(address, 0) >= settings.max_connections_per_address:
            raise Refused(429, "too many connections from one address; close some")
        self.total += 1
        if address is not None:
            self._by_address[address] = self._by_address.get(address, 0) + 1
        try:
            yield
        finally:
            self.total -= 1
            if address is not None:
                self._by_address[address] -= 1
                if not self._by_address[address]:
                    del self._by_address[address]

    def _check_origin(self, scope: Scope) -> None:
        """Refuse pages of other hosts: the browser sends their cookies. Source: RFC 6455, section 10.2."""
        headers = dict(reversed(scope["headers"]))
        given = headers.get(b"origin")
        allowed = self._settings.origins
        if given is None or "*" in allowed:
            return
        origin = given.decode("latin-1")
        if origin in allowed:
            return
        try:
            own = (
                bool(origin) and urlsplit(origin).netloc.lower() == headers.get(b"host", b"").decode("latin-1").lower()
            )
        except ValueError:
            own = False
        if not own:
            raise Refused(403, "this origin may not connect; the service lists others in websocket.origins")


def limited(receive: Receive, settings: WebSocketSettings, outbox: Callable[[], Outbox]) -> Receive:
    """Wrap a server's `receive`: a message that is too long, or one too many, closes the socket."""
    loop = asyncio.get_running_loop()
    allowance, last = float(settings.burst), loop.time()
    longest, rate, burst = settings.max_message_bytes, settings.messages_per_s, settings.burst

    async def receive_limited() -> Any:
        nonlocal allowance, last
        message = await receive()
        if message["type"] != "websocket.receive":
            return message
        text = message.get("text")
        size = len(message.get("bytes") or b"") if text is None else len(text)
        if text is not None and longest >= size > longest // 4:
            size = len(text.encode())
        now = loop.time()
        allowance = min(burst, allowance + (now - last) * rate) - 1
        last = now
        if size > longest:
            return _over(outbox(), TOO_BIG, f"a message may have {longest} bytes")
        if allowance < 0:
            return _over(outbox(), POLICY_VIOLATION, f"more than {rate:g} messages a second")
        return message

    return receive_limited


def _over(outbox: Outbox, code: int, reason: str) -> dict[str, object]:
    outbox.close(code, reason)
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


async def deny(scope: Scope, receive: Receive, send: Callable[[Any], Awaitable[None]], refused: Refused) -> None:
    """Answer a handshake with an HTTP status and problem details, where the server can; else it says 403."""
    message = await receive()
    if message["type"] == "websocket.connect":
        await respond(scope, receive, send, refused.status, refused.reason)


async def respond(
    scope: Scope, receive: Receive, send: Callable[[Any], Awaitable[None]], status: int, reason: str
) -> None:
    """Refuse a handshake that has been received."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})
        return
    body = JSON.encode({"type": "about:blank", "status": status, "detail": reason})
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
    # uvicorn logs an error for an application that returns before the connection has gone
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GONE_S):
            await receive()
            await receive()
