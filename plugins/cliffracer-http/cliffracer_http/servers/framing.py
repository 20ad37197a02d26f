"""What a server's parser lets pass: a length beside chunks, chunks that are none, whole URLs, bodies nobody reads."""

from __future__ import annotations

import asyncio
from typing import Any

from cliffracer_http.errors import BadFraming
from cliffracer_http.limits import refuse

from .interface import LINGER_BYTES, LINGER_S, Asgi

__all__ = ["framed"]

_QUIET_S = 0.3
"""How long who is still sending may pause."""


def framed(app: Asgi, *, drain: bool = False) -> Asgi:
    """Wrap an application; requests without a body pass as they are.

    A request with both `Content-Length` and `Transfer-Encoding` may be read in two ways, and hide another one from a
    proxy (RFC 9112, 6.1): it gets 400, where the server tells of both. So does one whose chunks turn out to be broken
    if the application, which learns of it as a disconnect, ends without a response. Of a whole URL as the target of a
    request, as proxies are sent, the path counts (3.2.2).

    Args:
        app: an ASGI 3 application.
        drain: before a response ends, read what is left of the request's body, up to `LINGER_BYTES`, for `LINGER_S`,
            and while it comes; for a server that resets a connection on which something was left, and its response.
    """

    def call(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] == "http":
            if scope["path"][:1] != "/":
                scope = _without_origin(scope)
            for name, _ in scope["headers"]:
                if name == b"transfer-encoding" or (drain and name == b"content-length"):
                    return _serve(app, scope, receive, send, drain)
        return app(scope, receive, send)

    return call


def _without_origin(scope: Any) -> Any:
    path = scope["path"]
    if not path.lower().startswith(("http://", "https://")):
        return scope
    raw = scope.get("raw_path") or b""
    return {
        **scope,
        "path": "/" + path.partition("//")[2].partition("/")[2],
        "raw_path": b"/" + raw.partition(b"//")[2].partition(b"/")[2],
    }


async def _serve(app: Asgi, scope: Any, receive: Any, send: Any, drain: bool) -> None:
    names = [name for name, _ in scope["headers"]]
    chunked = b"transfer-encoding" in names
    if chunked and b"content-length" in names:
        await refuse(scope, send, BadFraming("a request has a length or is chunked, not both; send one of them"))
        return
    answered = broken = False
    left = not any(name == b"expect" for name in names)  # who asks first sends nothing until the body is read
    reading = asyncio.Lock()

    async def receiving() -> Any:
        nonlocal broken, left
        try:
            async with reading:
                message = await receive()
        except asyncio.CancelledError:
            left = False  # it did not come in time
            raise
        broken = broken or message["type"] == "http.disconnect"
        left = not broken and message.get("more_body", False)
        return message

    async def sending(message: Any) -> None:
        nonlocal answered
        answered = True
        if drain and left and message["type"] == "http.response.body" and not message.get("more_body", False):
            await _drain(receiving)
        await send(message)

    await app(scope, receiving, sending)
    if broken and not answered and chunked:
        await refuse(scope, send, BadFraming("the chunks of the request's body are broken"))


async def _drain(receive: Any) -> None:
    time = asyncio.get_running_loop().time
    end, size, more = time() + LINGER_S, 0, True
    try:
        while more and size < LINGER_BYTES:
            async with asyncio.timeout_at(min(end, time() + _QUIET_S)):
                message = await receive()
            more = message.get("more_body", False)
            size += len(message.get("body", b""))
    except TimeoutError:
        pass  # the client sends no more, or too slowly
