"""uvicorn's protocol of websockets, which also takes whole frames."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import OPEN

from .frames import offer

__all__ = ["Socketed"]


class Socketed(WebSocketsSansIOProtocol):
    """Offers `cliffracer.frames` where messages are not compressed."""

    def handle_connect(self, event: Any) -> None:
        """Begin, and offer it before the application's task has its first turn."""
        super().handle_connect(event)
        if not self.config.ws_per_message_deflate and self.response.status_code == 101:
            offer(self.scope, self.send, self.write_frame)

    def write_frame(self, frame: bytes) -> bool:
        """Write a frame; see `frames.Write`."""
        if self.conn.state is not OPEN or self.disconnected or not self.writable.is_set():
            return False
        self.transport.write(frame)
        return True
