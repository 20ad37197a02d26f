"""No framework: an ASGI callable that compares paths, with msgspec for the JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks.payload import TEXT

__all__ = ["make"]


class Item(msgspec.Struct):
    number: int
    text: str


_decode = msgspec.json.Decoder(Item).decode
_encode = msgspec.json.Encoder().encode


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    status, body = 200, b""
    path = scope["path"]
    try:
        if scope["method"] == "GET" and path.startswith("/items/"):
            body = _encode(Item(number=int(path[7:]) + 1, text=TEXT))
        elif scope["method"] == "POST" and path == "/items":
            more = True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            item = _decode(body)
            body = _encode(Item(number=item.number + 1, text=item.text))
        else:
            status = 404
    except ValueError:
        status, body = 422, b""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


def make() -> Any:
    return _app
