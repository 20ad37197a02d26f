"""What a server's parser lets pass, and must not be served: a length beside chunks, chunks that are none."""

from __future__ import annotations

from typing import Any

from .interface import Asgi

__all__ = ["framed"]

_BOTH = b"a request has a length or is chunked, not both\n"
_BROKEN = b"the chunks of the request's body are broken\n"


def framed(app: Asgi) -> Asgi:
    """Wrap an application; requests that are not chunked pass as they are.

    A request with both `Content-Length` and `Transfer-Encoding` may be read in two ways, and hide another one from a
    proxy (RFC 9112, 6.1): it gets 400, where the server tells of both. So does one whose chunks turn out to be broken
    if the application, which learns of it as a disconnect, ends without a response.
    """

    def call(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] == "http":
            for name, _ in scope["headers"]:
                if name == b"transfer-encoding":
                    return _serve(app, scope, receive, send)
        return app(scope, receive, send)

    return call


async def _serve(app: Asgi, scope: Any, receive: Any, send: Any) -> None:
    if any(name == b"content-length" for name, _ in scope["headers"]):
        await _refuse(send, _BOTH)
        return
    answered = broken = False

    async def receiving() -> Any:
        nonlocal broken
        message = await receive()
        broken = broken or message["type"] == "http.disconnect"
        return message

    async def sending(message: Any) -> None:
        nonlocal answered
        answered = True
        await send(message)

    await app(scope, receiving, sending)
    if broken and not answered:
        await _refuse(send, _BROKEN)


async def _refuse(send: Any, why: bytes) -> None:
    headers = [
        (b"content-type", b"text/plain"), (b"content-length", b"%d" % len(why)), (b"connection", b"close")
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": why})
