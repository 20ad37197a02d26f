"""`WebSocket`: one open socket, as handlers get it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from cliffracer_http.handshakes import respond
from cliffracer_http.servers.frames import writer
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from cliffracer_core.errors import ValidationError

from .admission import Limited
from .answers import body_of, decode_json, not_json
from .codes import INVALID_PAYLOAD, NORMAL, UNSUPPORTED_DATA, close_event
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
        closes_waiting: whether the server can close it while somebody waits for a message, as granian cannot.
    """

    def __init__(
        self, scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]], settings: WebSocketSettings, processor: RealTimeStreamProcessor,
        on_accept: Callable[[WebSocket], Awaitable[None]] | None = None, *, closes_waiting: bool = True,
    ) -> None:  # fmt: skip
        self.id = uuid.uuid4().hex
        """The client's id where nobody gives it another."""
        self._to_server = send
        closing = send if closes_waiting else self._send_alone
        self.outbox = Outbox(closing, processor.limits, PLAIN.notice, processor.stalled)
        self.outbox.abort = self.abort
        self.outbox.write = writer(scope, send)
        self.joined: dict[RealTimeStreamProcessor, str] = {}
        """The processors it was added to, and its client id there."""
        self.aborted = False
        self.on_accept = on_accept
        self._task = asyncio.current_task()
        self.incoming = Limited(receive, settings, self.outbox)
        self.working = False
        """A message of it is handled just now, by a handler that is called for each."""
        self.farewell: tuple[int, str] | None = None
        """Code and reason with which it closes once that is done."""
        super().__init__(scope, self.incoming, send)

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
        """Return the next message, which is text; a binary one closes the socket with 1003.

        Raises:
            WebSocketDisconnect: it is closed.
        """
        text: str | None = (await self._message()).get("text")
        return text if text is not None else self._unfit(UNSUPPORTED_DATA, "this socket takes text messages")

    async def receive_bytes(self) -> bytes:
        """Return the next message, which is binary; text closes the socket with 1003.

        Raises:
            WebSocketDisconnect: it is closed.
        """
        data: bytes | None = (await self._message()).get("bytes")
        return data if data is not None else self._unfit(UNSUPPORTED_DATA, "this socket takes binary messages")

    async def receive_json(self, mode: str = "text") -> Any:
        """Return the next message, text or binary, as what its JSON says; no JSON closes the socket with 1007.

        Raises:
            WebSocketDisconnect: it is closed.
        """
        try:
            return decode_json(body_of(await self._message()))
        except ValidationError as error:
            self._unfit(INVALID_PAYLOAD, not_json(error))

    async def receive_body(self) -> bytes:
        """Return the next message, text or binary, as bytes.

        Raises:
            WebSocketDisconnect: it is closed.
        """
        return body_of(await self._message())

    async def take(self) -> bytes:
        """Return the next message for a handler that is called for each; what it does with it a stop waits for.

        Raises:
            WebSocketDisconnect: it is closed.
        """
        self.working = False
        if self.farewell is not None:
            self.outbox.close(*self.farewell)
            raise WebSocketDisconnect(*self.farewell)
        body = body_of(await self._message())
        self.working = True
        return body

    async def _begin(self) -> None:
        if self.application_state == WebSocketState.CONNECTING:
            await self.accept()

    async def _message(self) -> MutableMapping[str, Any]:
        await self._begin()
        if self.client_state == WebSocketState.DISCONNECTED:
            raise WebSocketDisconnect(NORMAL, "the socket is closed")
        message: MutableMapping[str, Any] = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.client_state = WebSocketState.DISCONNECTED
            raise WebSocketDisconnect(message.get("code", NORMAL), message.get("reason"))
        return message

    def _unfit(self, code: int, reason: str) -> NoReturn:
        """Close it for a message that its handler cannot take."""
        self.outbox.close(code, reason)
        self.application_state = WebSocketState.DISCONNECTED
        raise WebSocketDisconnect(code, reason)

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

    async def _send_alone(self, event: MutableMapping[str, Any]) -> None:
        if event["type"] == "websocket.close":
            self.incoming.stop(event["code"], event["reason"])
        await self._to_server(event)

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
