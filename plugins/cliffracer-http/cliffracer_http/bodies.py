"""Reading a request's body, up to a limit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from cliffracer_core.errors import MessageTooLarge

from .errors import ClientGone

__all__ = ["chunks", "limited", "read_body", "too_large"]


async def read_body(message: Any, receive: Callable[[], Any], limit: int) -> bytes:
    """Return a request's whole body.

    Args:
        message: the first one.
        receive: makes what gives the others, where there are any.
        limit: bytes.

    Raises:
        MessageTooLarge: it is longer than `limit` bytes.
        ClientGone: the connection ended before it was there.
    """
    if message["type"] != "http.request":
        raise _gone()
    body: bytes = message.get("body", b"")
    if len(body) > limit:
        raise too_large(limit)
    if not message.get("more_body", False):
        return body
    parts, size = [body], len(body)
    async for part in chunks(receive(), limit - size):
        parts.append(part)
    return b"".join(parts)


async def chunks(receive: Any, limit: int) -> AsyncGenerator[bytes, None]:
    """Yield the parts of a request's body as they come; raises as `read_body`."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _gone()
        body, more = message.get("body", b""), message.get("more_body", False)
        size += len(body)
        if size > limit:
            raise too_large(limit)
        if body:
            yield body


def limited(receive: Any, limit: int) -> Any:
    """Wrap `receive` for an application that reads by itself; it raises MessageTooLarge past the limit."""
    size = 0

    async def counted() -> Any:
        nonlocal size
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            if size > limit:
                raise too_large(limit)
        return message

    return counted


def too_large(limit: int) -> MessageTooLarge:
    """Return the error for a body longer than `limit` bytes."""
    return MessageTooLarge(f"body is longer than {limit} bytes; send less, or set 'max_body_bytes'")


def _gone() -> ClientGone:
    return ClientGone("the request's body ended before it was complete")
