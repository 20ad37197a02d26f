"""`cliffracer.frames`, an ASGI extension: a frame that is made once is written to many websockets.

An ASGI `send` makes a frame of each message for each socket, and each is a system call. Where a server offers the
extension, and nobody stands between it and the application, `writer` gives what takes the frame itself.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Frames", "Write", "text_frame", "writer"]

_NAME = "cliffracer.frames"
_HELD_BYTES = 64 * 1024

Write = Callable[[bytes], bool]
"""Take a whole frame; False, and it is not sent, where the socket is not open or its client is behind."""


class Frames:
    """Frames for one socket; those of one turn of the event loop are written at once.

    What else is written to the socket after them must `flush` first.

    Args:
        transport: the socket's.
        is_open: tells whether frames may be written: the socket is accepted, and neither side has closed it.
        is_read: tells whether its client reads what is written.
    """

    __slots__ = ("_bytes", "_held", "_is_open", "_is_read", "_transport")

    def __init__(
        self, transport: asyncio.WriteTransport, is_open: Callable[[], bool], is_read: Callable[[], bool]
    ) -> None:
        self._transport = transport
        self._is_open = is_open
        self._is_read = is_read
        self._held: list[bytes] | None = None
        self._bytes = 0

    def offer(self, scope: Any, send: Any) -> None:
        """Put the extension into a websocket's scope; `send` is the server's own."""
        scope["extensions"][_NAME] = {"send": send, "write": self.write}

    def write(self, frame: bytes) -> bool:
        """Take a frame; see `Write`."""
        if not self._is_open() or not self._is_read():
            return False
        if self._held is None:
            self._held = []
            asyncio.get_running_loop().call_soon(self.flush)
        self._held.append(frame)
        self._bytes += len(frame)
        if self._bytes > _HELD_BYTES:
            self.flush()
        return True

    def flush(self) -> None:
        """Write what is held; nothing where the socket has begun to close meanwhile."""
        held, self._held, self._bytes = self._held, None, 0
        if held and self._is_open():
            self._transport.write(b"".join(held))


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
