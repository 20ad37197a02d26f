"""The producer's end of a streamed reply: what an async generator yields, as far as its consumer has room."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator
from typing import Any

from .compiled import FATAL, Handler, stopped
from .context import MessageContext
from .errors import CliffracerError, DeadlineExceeded, InvalidHeader, MessageTooLarge, ServiceError, ValidationError
from .generators import STREAM
from .inbox import new_prefix
from .interfaces import Transport
from .limits import Run
from .messages import (
    CONTENT_TYPE,
    JSON,
    STREAM_END,
    STREAM_GAP_MS,
    STREAM_SEQ,
    STREAM_TO,
    STREAM_WINDOW,
    Message,
    codec_for,
)
from .requests import Publisher, RequestEndpoint, uncancel
from .scope import Scope
from .stream_in import GIVE_UP, Accepted
from .subjects import validate_subject

__all__ = ["Controls", "StreamEndpoint"]

logger = logging.getLogger("cliffracer")


class Controls:
    """Where the consumers of one service's streams on one transport grant credit and give up."""

    def __init__(self) -> None:
        self._prefix = new_prefix()
        self._count = 0
        self.pattern = f"{self._prefix}.*"
        self.streams: dict[str, Outbound] = {}
        """Those under way, by control subject."""

    def new_subject(self) -> str:
        """Make a control subject that was never used before."""
        self._count += 1
        return f"{self._prefix}.{self._count:x}"

    def on_message(self, message: Message) -> None:
        """Take a credit from the transport; never blocks."""
        stream = self.streams.get(message.subject)
        if stream is not None:
            stream.hear(message.body)


class Outbound:
    """One stream as its producer sees it.

    Args:
        handler: what produces it.
        transport: what items go out on.
        control: where the consumer is heard.
        message: the request.
        context: of the call; its deadline moves on with each item.
        run: of the call.

    Raises:
        ValidationError: the request asks for no stream.
        InvalidHeader, InvalidSubject: it asks for one wrongly.
    """

    def __init__(
        self, handler: Handler, transport: Publisher, control: str, message: Message, context: MessageContext, run: Run
    ) -> None:
        headers = message.headers or {}
        if STREAM_TO not in headers:
            raise ValidationError(f"{handler.name} streams its reply; call it with stream()")
        self.to = validate_subject(headers[STREAM_TO])
        self.control = control
        self.accepted = self.finished = False
        self.gap_s = min(_whole(headers, STREAM_GAP_MS) / 1000, handler.scope.max_timeout_s)
        self._granted = _whole(headers, STREAM_WINDOW)
        self._sent = 0
        self._name = handler.name
        self._scope: Scope = handler.scope
        self._transport = transport
        self._reply_to = message.reply_to
        self._context = context
        self._run = run
        self._codec = codec_for(headers)
        self._headers = {} if self._codec is JSON else {CONTENT_TYPE: self._codec.content_type}
        self._room: asyncio.Future[None] | None = None
        self._heard = self._scope.loop.time()
        self.deadline = math.inf
        """When its consumer, unheard of until then, is taken for gone."""

    def hear(self, word: bytes) -> None:
        """Take a credit, the total of items there is room for; anything else means that nobody takes more."""
        self._heard = self._scope.loop.time()
        if word.isdigit() and len(word) < 18:
            self._granted = max(self._granted, int(word))
            if self._room is not None and not self._room.done() and self._sent < self._granted:
                self._room.set_result(None)
        else:  # `GIVE_UP`, or a server's word that nobody listens
            logger.debug("%s: its consumer gave up%s", self._name, "" if word == GIVE_UP else ", or is gone")
            self._run.stop("caller")

    async def send_all(self, items: AsyncGenerator[object, None]) -> None:
        """Send what the generator yields, at most as many as there is room for; it is closed at the end."""
        await self._accept()
        try:
            while True:
                while self._sent >= self._granted:
                    self._room = self._scope.loop.create_future()
                    await self._room
                try:
                    item = await self._next(items)
                except StopAsyncIteration:
                    break
                await self._send(item)
        finally:
            await items.aclose()
        self.finished = True

    async def _accept(self) -> None:
        self.accepted = True
        self._run.deadline = math.inf  # the first item was asked for in time
        if self._reply_to is not None:
            accepted = Accepted(self.control, max(1, int(self.gap_s * 1000)))
            await self._transport.publish(Message(self._reply_to, self._codec.encode(accepted), self._headers or None))
        self._listen_for_life()

    async def _next(self, items: AsyncGenerator[object, None]) -> object:
        run = self._run
        run.deadline = self._context.deadline = self._scope.loop.time() + self.gap_s
        self._scope.deadlines.watch(run.deadline)
        try:
            return await anext(items)
        finally:
            run.deadline = math.inf

    async def _send(self, item: object) -> None:
        self._sent += 1
        headers = {**self._headers, STREAM_SEQ: str(self._sent)}
        try:
            await self._transport.publish(Message(self.to, self._codec.encode(item), headers, self.control))
        except MessageTooLarge as error:
            raise MessageTooLarge(f"{self._name}: an item is too large: {error}") from None

    async def end(self) -> None:
        """Say that this was all.

        Raises:
            ServiceError: it was not: a layer answered in the generator's place.
        """
        if not self.finished:
            raise ServiceError(f"{self._name}: a layer or an error handler answered in place of the stream")
        await self._transport.publish(Message(self.to, b"", {STREAM_END: str(self._sent)}, self.control))

    def _listen_for_life(self) -> None:
        self.deadline = self._heard + self.gap_s
        self._scope.timers.add(self, self)

    def expire(self) -> None:
        """Give the consumer up if it was not heard of for the whole gap."""
        if self._heard + self.gap_s > self._scope.loop.time():
            self._listen_for_life()
        else:
            self.close()
            logger.warning("%s: its consumer was not heard of for %g s and is given up", self._name, self.gap_s)
            self._run.stop("caller")

    def close(self) -> None:
        """Forget the timers."""
        self._scope.timers.discard(self)

    def why(self) -> CliffracerError:
        """Say in an error of ours why the stream was cut."""
        if self._run.reason == "deadline" and self.accepted:
            return DeadlineExceeded(f"{self._name} gave no item within {self.gap_s:g} s and was cancelled")
        return stopped(self._run, self._name)


def _whole(headers: Any, name: str) -> int:
    value = headers.get(name, "")
    if not (value.isascii() and value.isdigit() and len(value) < 16 and int(value) > 0):
        raise InvalidHeader(f"header {name!r} is not a whole number above 0")
    return int(value)


class StreamEndpoint(RequestEndpoint):
    """Answer requests with what a handler that is an async generator yields.

    Args:
        handler, transport, subject, timeout_s, queue_size: as `RequestEndpoint`; the time is that until the first item.
        controls: hears the consumers.
    """

    def __init__(
        self,
        handler: Handler,
        transport: Transport,
        subject: str,
        controls: Controls,
        *,
        timeout_s: float,
        queue_size: int,
    ) -> None:
        super().__init__(handler, transport, subject, timeout_s=timeout_s, queue_size=queue_size)
        self._controls = controls

    async def _serve(self, message: Message, run: Run, received: float | None) -> None:
        context: MessageContext | None = None
        stream: Outbound | None = None
        try:
            context = self._context(message, received)
            control = self._controls.new_subject()
            stream = Outbound(self.handler, self._transport, control, message, context, run)
            context.state[STREAM] = stream.send_all
            await self._run(stream, context, run)
        except asyncio.CancelledError:
            uncancel()
            await self._break(
                message, stopped(run, self.handler.name) if stream is None else stream.why(), context, stream
            )
        except FATAL:
            raise
        except BaseException as error:
            await self._break(message, error, context, stream)
        finally:
            self._scope.end(run)
            self._gate.leave()

    async def _run(self, stream: Outbound, context: MessageContext, run: Run) -> None:
        streams = self._controls.streams
        streams[stream.control] = stream
        try:
            self._scope.begin(run, context)
            await self._chain(context)
            await stream.end()
        finally:
            del streams[stream.control]
            stream.close()
            self._scope.end(run)

    async def _break(
        self, message: Message, error: BaseException, context: MessageContext | None, stream: Outbound | None
    ) -> None:
        if stream is None or not stream.accepted:
            await self._fail(message, error, context)
        else:
            await self._fail(Message(message.subject, b"", message.headers, stream.to), error, context, stream.control)
