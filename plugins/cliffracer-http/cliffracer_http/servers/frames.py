"""`cliffracer.frames`, an ASGI extension: a frame that is made once is written to many websockets.

An ASGI `send` makes a frame of each message for each socket, and each is a system call. Where a server offers the
extension, and nobody stands between it and the application, `writer` gives what takes the frame itself.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Frames", "Turn", "Write", "text_frame", "writer"]

_NAME = "cliffracer.frames"
_HELD_BYTES = 64 * 1024

Write = Callable[[bytes], bool]
"""Take a whole frame; False, and it is not sent, where the socket is not open or its client is behind."""


class Turn:
    """Sockets of one server that hold frames until this turn of the event loop ends."""

    __slots__ = ("_holding",)

    def __init__(self) -> None:
        self._holding: list[Frames] = []

    def add(self, frames: Frames) -> None:
        """Have a socket's frames written at the end of this turn."""
        if not self._holding:
            asyncio.get_running_loop().call_soon(self._end)
        self._holding.append(frames)

    def _end(self) -> None:
        holding, self._holding = self._holding, []
        for each in holding:
            each.flush()


class Frames:
    """Frames for one socket; those of one turn of the event loop are written at once.

    What else is written to the socket after them must `flush` first.

    Args:
        turn: the server's.
        transport: the socket's.
        is_open: tells whether frames may be written: the socket is accepted, and neither side has closed it.
        is_read: tells whether its client reads what is written.
    """

    __slots__ = ("_bytes", "_held", "_is_open", "_is_read", "_transport", "_turn")

    def __init__(
        self, turn: Turn, transport: asyncio.WriteTransport, is_open: Callable[[], bool], is_read: Callable[[], bool]
    ) -> None:
        self._turn = turn
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
            self._held = [frame]
            self._turn.add(self)
        else:
            self._held.append(frame)
        self._bytes += len(frame)
        if self._bytes > _HELD_BYTES:
            self.flush()
        return True

    def flush(self) -> None:
        """Write what is held; nothing where the socket has begun to close meanwhile."""
        held = self._held
        if held is None:
            return
        self._held, self._bytes = None, 0
        if self._is_open() and not self._transport.is_closing():  # uvloop's raise where they were aborted
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))


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
