"""uvicorn's protocol of websockets, which also takes whole frames."""

from __future__ import annotations

import logging
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import OPEN

from .frames import Frames, Turn

__all__ = ["socket_protocol"]

logger = logging.getLogger("cliffracer.http.sockets")
logger.setLevel(logging.WARNING)  # uvicorn tells of each socket, with the query that may hold a token


def socket_protocol() -> type[WebSocketsSansIOProtocol]:
    """Make the protocol of one server's websockets."""
    turn = Turn()

    class Socketed(WebSocketsSansIOProtocol):
        """Offers `cliffracer.frames` where messages are not compressed, and counts every message as a sign of life."""

        _frames: Frames | None = None
        _heard = False

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.logger = self.conn.logger = logger

        def handle_connect(self, event: Any) -> None:
            """Begin, and offer it before the application's task has its first turn."""
            super().handle_connect(event)
            if not self.config.ws_per_message_deflate and self.response.status_code == 101:
                self._frames = Frames(turn, self.transport, self._is_open, self.writable.is_set)
                self._frames.offer(self.scope, self.send)

        def data_received(self, data: bytes) -> None:
            """Take what the network sends; a head that cannot be read is answered, and the connection closed."""
            super().data_received(data)
            if not self.handshake_initiated and self.conn.handshake_exc is not None:
                self.transport.write(b"".join(self.conn.data_to_send()))
                self.transport.close()

        def _is_open(self) -> bool:
            return self.conn.state is OPEN and not self.disconnected

        def send_receive_event_to_app(self) -> None:
            """Hand a message on."""
            self._heard = True
            super().send_receive_event_to_app()

        def send_keepalive_ping(self) -> None:
            """Ping."""
            self._heard = False
            super().send_keepalive_ping()

        def keepalive_timeout(self) -> None:
            """Cut the client off, unless its answer may wait unread: nothing is read while the application is busy."""
            if not (self.read_paused or self._heard):
                super().keepalive_timeout()
                return
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()

        async def send(self, message: Any) -> None:
            """Send an ASGI event, after the frames that came before it."""
            if self._frames is not None:
                self._frames.flush()
            await super().send(message)

        def shutdown(self) -> None:
            """Close, after what was sent."""
            if self._frames is not None:
                self._frames.flush()
            super().shutdown()

    return Socketed
