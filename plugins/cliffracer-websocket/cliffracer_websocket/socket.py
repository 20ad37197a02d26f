"""`WebSocket`: one open socket, as handlers get it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from cliffracer_http.servers.frames import writer
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from .admission import Limited, respond
from .codes import NORMAL, close_event
from .outbox import Outbox
from .publication import PLAIN
from .settings import WebSocketSettings

if TYPE_CHECKING:
    from .processor import RealTimeStreamProcessor

__all__ = ["WebSocket", "WebSocketDisconnect"]


class WebSocket(StarletteWebSocket):
    """Starlette's WebSocket, whose sends go through a bounded outbox, and whose messages are limited.

    It is accepted by its first use, where `accept` was not called before.

    Args:
        scope: of ASGI, as `receive` and `send`.
        receive: the server's.
        send: the server's.
        settings: the limits.
        processor: looks after clients that do not read.
        on_accept: called once it is accepted.
    """

    def __init__(
        self, scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]], settings: WebSocketSettings, processor: RealTimeStreamProcessor,
        on_accept: Callable[[WebSocket], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        self.id = uuid.uuid4().hex
        """The client's id where nobody gives it another."""
        self.outbox = Outbox(send, processor.limits, PLAIN.notice, processor.stalled)
        self.outbox.abort = self.abort
        self.outbox.write = writer(scope, send)
        self.joined: dict[RealTimeStreamProcessor, str] = {}
        """The processors it was added to, and its client id there."""
        self.aborted = False
        self.on_accept = on_accept
        self._task = asyncio.current_task()
        super().__init__(scope, Limited(receive, settings, self.outbox), send)

    @property
    def open(self) -> bool:
        """Whether it is accepted, and neither side has closed it."""
        connected = WebSocketState.CONNECTED
        return self.application_state == connected == self.client_state and not self.outbox.closed

    async def accept(
        self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Accept it; from then on broadcasts reach it."""
        await super().accept(subprotocol, headers)
        if self.on_accept is not None:
            await self.on_accept(self)

    async def receive_text(self) -> str:
        """Return the next message, which is text. Raises WebSocketDisconnect."""
        await self._begin()
        return await super().receive_text()

    async def receive_bytes(self) -> bytes:
        """Return the next message, which is binary. Raises WebSocketDisconnect."""
        await self._begin()
        return await super().receive_bytes()

    async def receive_json(self, mode: str = "text") -> Any:
        """Return the next message as what its JSON says. Raises WebSocketDisconnect."""
        await self._begin()
        return await super().receive_json(mode)

    async def _begin(self) -> None:
        if self.application_state == WebSocketState.CONNECTING:
            await self.accept()

    async def receive_body(self) -> bytes:
        """Return the next message, text or binary, as bytes.

        Raises:
            WebSocketDisconnect: it is closed.
        """
        await self._begin()
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.client_state = WebSocketState.DISCONNECTED
            raise WebSocketDisconnect(message.get("code", NORMAL), message.get("reason"))
        text = message.get("text")
        return message.get("bytes") or b"" if text is None else text.encode()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send an ASGI event, and wait while the client is behind.

        Raises:
            WebSocketDisconnect: it is closed.
        """
        kind = message["type"]
        if kind == "websocket.close" and self.application_state == WebSocketState.CONNECTED:
            self.application_state = WebSocketState.DISCONNECTED
            self.outbox.close(message.get("code", NORMAL), message.get("reason") or "")
        elif kind == "websocket.send":
            await self._begin()
            if self.outbox.closed:
                raise WebSocketDisconnect(NORMAL, "the socket is closed")
            self.outbox.push(message)
        else:
            await super().send(message)
            return
        await self.outbox.drained()

    async def refuse(self, status: int, reason: str) -> None:
        """Refuse it with an HTTP status, instead of accepting it."""
        if self.client_state == WebSocketState.CONNECTING:
            await super().receive()
        self.application_state = WebSocketState.DISCONNECTED
        self.outbox.closed = True
        await respond(self.scope, self._receive, self._send, status, reason)

    async def end(self, code: int = NORMAL, reason: str = "") -> None:
        """Close it, if it is open, and give what waits a moment to get out."""
        if self.open:
            self.application_state = WebSocketState.DISCONNECTED
            self.outbox.close(code, reason)
        elif self.application_state == WebSocketState.CONNECTING and not self.outbox.closed:
            self.application_state = WebSocketState.DISCONNECTED
            if self.client_state == WebSocketState.CONNECTING:
                await super().receive()
            await self._send(close_event(code, reason))
        try:
            async with asyncio.timeout(2.0):
                await self.outbox.drained()
        except TimeoutError:
            pass
        self.outbox.forget()

    def abort(self) -> None:
        """End the connection without a word: not even a close frame gets through."""
        transport = getattr(getattr(self._send, "__self__", None), "transport", None)
        if transport is not None and hasattr(transport, "abort"):
            transport.abort()
        self.leave()

    def leave(self) -> None:
        """End its handler, as a client does that goes away."""
        self.aborted = True
        if self._task is not None:
            self._task.cancel()
