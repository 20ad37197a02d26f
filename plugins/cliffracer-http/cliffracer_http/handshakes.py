"""Websockets that are not opened: their handshake gets an HTTP status and problem details."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from cliffracer_core.messages import JSON

__all__ = ["deny", "respond"]

_GONE_S = 0.5
_POLICY_VIOLATION = 1008


async def deny(scope: Any, receive: Any, send: Any, status: int, reason: str) -> None:
    """Refuse a handshake that nobody has received yet.

    Args:
        scope: of ASGI, as `receive` and `send`.
        receive: the server's.
        send: the server's.
        status: of HTTP.
        reason: what the client is told.
    """
    if (await receive())["type"] == "websocket.connect":
        await respond(scope, receive, send, status, reason)


async def respond(scope: Any, receive: Any, send: Any, status: int, reason: str) -> None:
    """Refuse a handshake that has been received; a server that cannot say why answers 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})
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
