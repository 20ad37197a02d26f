"""`cliffracer.frames`, an ASGI extension: a frame that is made once is written to many websockets.

An ASGI `send` makes a frame of each message for each socket. Where a server offers the extension, and nobody stands
between it and the application, `writer` gives what takes the frame itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Write", "offer", "text_frame", "writer"]

_NAME = "cliffracer.frames"

Write = Callable[[bytes], bool]
"""Write a whole frame at once; False, and nothing is written, where the socket is not open or its client is behind."""


def offer(scope: Any, send: Any, write: Write) -> None:
    """Put the extension into a websocket's scope; `send` is the server's own."""
    scope["extensions"][_NAME] = {"send": send, "write": write}


def writer(scope: Mapping[str, Any], send: Any) -> Write | None:
    """Return what writes frames; None where the server offers nothing, or a middleware has `send` for itself."""
    found = (scope.get("extensions") or {}).get(_NAME)
    return found["write"] if found is not None and found["send"] == send else None


def text_frame(payload: bytes) -> bytes:
    """Make an uncompressed frame of a whole text message, as servers send them. Source: RFC 6455, section 5.2."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload
