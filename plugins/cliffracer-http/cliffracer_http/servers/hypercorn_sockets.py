"""What Hypercorn's websockets lack: close codes, pings that must be answered, no compression, and whole frames."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Coroutine
from typing import Any, cast

from hypercorn.protocol.events import EndData, Event, StreamClosed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WSStream
from hypercorn.typing import AppWrapper
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol

from cliffracer_core.interfaces import SocketLimits

from .frames import Frames, Turn

__all__ = ["SocketApp"]

_BEHIND_BYTES = 64 * 1024
_TOO_BIG, _INTERNAL_ERROR = 1009, 1011


class SocketApp:
    """The application of one connection, as Hypercorn calls it.

    Args:
        app: what serves.
        limits: of websockets.
        turn: the server's.
        transport: the connection's.
    """

    def __init__(self, app: AppWrapper, limits: SocketLimits, turn: Turn, transport: asyncio.WriteTransport) -> None:
        self._app = app
        self._limits = limits
        self._turn = turn
        self._transport = transport

    def __call__(
        self, scope: Any, receive: Any, send: Any, sync_spawn: Callable[..., Any], call_soon: Callable[..., Any]
    ) -> Coroutine[Any, Any, None]:
        """Serve a request or a websocket."""
        if scope["type"] == "websocket":
            return self._serve(scope, receive, send, sync_spawn, call_soon)
        return self._app(scope, receive, send, sync_spawn, call_soon)

    async def _serve(self, scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
        stream = SocketStream.watch(send.__self__, self._limits)
        frames = None
        if not self._limits.compression:
            stream.handshake.extensions = None  # as if the client had offered none
            if isinstance(getattr(stream.send, "__self__", None), H11Protocol):
                frames = Frames(self._turn, self._transport, lambda: stream.is_open, self._is_read)

        async def flushed(message: Any) -> None:
            frames.flush()  # type: ignore[union-attr]  # used only where there are some
            await send(message)

        if frames is not None:
            frames.offer(scope, flushed)
        try:
            await self._app(scope, receive, send if frames is None else flushed, sync_spawn, call_soon)
        finally:
            stream.unwatch()
            if frames is not None:
                frames.flush()

    def _is_read(self) -> bool:
        return self._transport.get_write_buffer_size() < _BEHIND_BYTES


class SocketStream(WSStream):
    """A websocket whose errors have the codes of RFC 6455, and whose client must answer pings.

    Hypercorn makes its streams itself; `watch` turns one into this.
    """

    _limits: SocketLimits
    _loop: asyncio.AbstractEventLoop
    _timer: asyncio.TimerHandle | None
    _task: asyncio.Task[None] | None = None
    _heard = False
    _busy = 0
    _last: tuple[int, str] | None = None
    """Code and reason with which it was closed."""

    @classmethod
    def watch(cls, stream: WSStream, limits: SocketLimits) -> SocketStream:
        """Take over a stream whose application has not answered yet."""
        stream.__class__ = cls
        watched = cast(SocketStream, stream)
        watched._limits = limits
        watched._loop = asyncio.get_running_loop()
        watched._timer = watched._loop.call_later(limits.ping_interval_s, watched._ping)
        return watched

    @property
    def is_open(self) -> bool:
        """Whether it is accepted, and neither side has closed it."""
        connected = self.state is ASGIWebsocketState.CONNECTED and not self.closed
        return connected and self.connection.state is ConnectionState.OPEN

    @property
    def _too_big(self) -> str:
        return f"a message may have {self._limits.max_message_bytes} bytes"

    def unwatch(self) -> None:
        """Ping no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _accept(self, *args: Any) -> None:
        await super()._accept(*args)
        for each in self.connection._proto.extensions:
            if isinstance(each, PerMessageDeflate):
                each.__class__ = _Bounded
                cast(_Bounded, each).max_bytes = self._limits.max_message_bytes

    async def handle(self, event: Event) -> None:
        """Take what the network sends; a disconnect says with which code."""
        self._heard = True
        self._busy += 1
        try:
            if isinstance(event, StreamClosed) and self._last is not None and not self.closed:
                self.closed = True
                code, reason = self._last
                await self.app_put({"type": "websocket.disconnect", "code": code, "reason": reason})  # type: ignore[misc]  # there is an application
                return
            await super().handle(event)  # waits while the application has enough to do: the client is not to blame
        finally:
            self._busy -= 1

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                try:
                    self.buffer.extend(event)
                except FrameTooLargeError:
                    await self._fail(_TOO_BIG, self._too_big)
                    return
                if event.message_finished:
                    await self.app_put(self.buffer.to_message())  # type: ignore[misc]  # there is an application
                    self.buffer.clear()
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                if self.connection.state is not ConnectionState.REMOTE_CLOSING and self.is_open:
                    reason = self._too_big if event.code == _TOO_BIG else event.reason or ""
                    await self._fail(event.code, reason)  # its own: a frame was invalid
                    return
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    self._last = (event.code, event.reason or "")
                    await self._send_wsproto_event(event.response())
                await self.send(StreamClosed(stream_id=self.stream_id))

    async def _fail(self, code: int, reason: str) -> None:
        if not self.is_open:
            return
        self.state = ASGIWebsocketState.CLOSED
        self._last = (code, reason)
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))
        await self.send(EndData(stream_id=self.stream_id))
        await self.send(StreamClosed(stream_id=self.stream_id))

    def _ping(self) -> None:
        self._timer = None
        if self.state is ASGIWebsocketState.CONNECTED and not self.closed:
            self._heard = False
            self._task = self._loop.create_task(self._send_wsproto_event(Ping()))
            self._timer = self._loop.call_later(self._limits.ping_timeout_s, self._check)
        elif not self.closed and not self.idle:
            self._timer = self._loop.call_later(self._limits.ping_interval_s, self._ping)

    def _check(self) -> None:
        self._timer = None
        if self._heard or self._busy:
            self._timer = self._loop.call_later(self._limits.ping_interval_s, self._ping)
        else:
            self._task = self._loop.create_task(self._fail(_INTERNAL_ERROR, "no answer to a ping"))


class _Bounded(PerMessageDeflate):
    """Inflates no more than a message may have: 60 kB can be 60 MB."""

    max_bytes: int

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        if not self._inbound_compressed or self._decompressor is None or not self._inbound_is_compressible:
            return super().frame_inbound_payload_data(proto, data)
        try:
            found = self._decompressor.decompress(data, self.max_bytes + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        return CloseReason.MESSAGE_TOO_BIG if self._decompressor.unconsumed_tail else found
