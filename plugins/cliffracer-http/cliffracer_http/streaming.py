"""Results that come bit by bit: what an async generator yields, sent as it is made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from cliffracer_core import MessageContext
from cliffracer_core.errors import CliffracerError, DeadlineExceeded
from cliffracer_core.generators import STREAM
from cliffracer_core.interfaces import Call
from cliffracer_core.messages import JSON

from .edge import CORRELATION_HEADER
from .model import RouteModel
from .negotiation import EVENT_STREAM, quality
from .problems import problem_of
from .responses import Event, encode_event

__all__ = ["BREATH", "HEARTBEAT_S", "ResponseBroken", "pour"]

HEARTBEAT_S = 15.0
"""Silence after which an event stream is sent a comment, so that nobody between takes it for dead."""
BREATH = 32
"""Items after which a stream that never waits lets others run, and is told where its client has gone."""
LINES = "application/x-ndjson"
_BYTES = "application/octet-stream"
_TEXT = "text/plain; charset=utf-8"
_NONE = object()


class ResponseBroken(Exception):
    """A stream failed after it began: the connection is cut, so that no client takes the part for the whole."""


async def pour(
    model: RouteModel,
    call: Call,
    context: MessageContext,
    accept: bytes,
    send: Any,
    deadline: float,
    settle: Callable[[], None],
    *,
    head: bool,
) -> None:
    """Call a handler that is a generator, and send what it yields.

    Args:
        model: the route.
        call: the handler's chain.
        context: of the call, without a deadline.
        accept: the header.
        send: ASGI's.
        deadline: of the first item, on `time.monotonic()`; a stream that began may take its time.
        settle: called when all is sent but the end.
        head: send no items.

    Raises:
        DeadlineExceeded: nothing came until the deadline.
        ResponseBroken: the generator failed after its first item.
    """

    async def send_all(items: AsyncGenerator[Any, None]) -> None:
        async with contextlib.aclosing(items):
            first = await anext(items, _NONE)  # what fails until here is an ordinary error response
            limit.reschedule(None)
            media_type = _media_type(model, accept, first)
            out = _Out(send, model, context.correlation_id, media_type)
            await out.begin()
            if not head:
                await out.pour(first, items)
            settle()
            await out.end()

    context.state[STREAM] = send_all
    try:
        async with asyncio.timeout_at(deadline) as limit:
            await call(context)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceeded(f"{model.where} yielded nothing before its deadline") from error


def _media_type(model: RouteModel, accept: bytes, first: Any) -> str:
    if model.media_type is not None:
        return model.media_type
    kind = model.returns if first is _NONE else type(first)
    if kind is Event or quality(accept, EVENT_STREAM) > quality(accept, LINES):
        return EVENT_STREAM
    return _BYTES if kind is bytes else _TEXT if kind is str else LINES


class _Out:
    """One response on its way."""

    def __init__(self, send: Any, model: RouteModel, correlation_id: str, media_type: str) -> None:
        self._send = send
        self._model = model
        self._id = correlation_id
        self._media_type = media_type
        self._events = media_type.startswith(EVENT_STREAM)
        self._sending = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        headers = [
            (b"content-type", self._media_type.encode("ascii")),
            (CORRELATION_HEADER, self._id.encode("ascii")),
        ]
        if self._events:
            headers += [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await self._send({"type": "http.response.start", "status": self._model.status_code, "headers": headers})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def pour(self, first: Any, items: AsyncGenerator[Any, None]) -> None:
        """Send all items; while an event stream is silent, comments."""
        if self._events:
            self._arm()
        try:
            if first is not _NONE:
                await self._put(first)
                count = 0
                async for item in items:
                    await self._put(item)
                    count += 1
                    if not count % BREATH:
                        await asyncio.sleep(0)
        except Exception as error:
            if not self._events:
                raise ResponseBroken(f"{self._model.where}: the stream failed after it began") from error
            await self._fail(error)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._beat is not None:
                self._beat.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._beat

    async def _put(self, item: Any) -> None:
        await self._write(self._encode(item))

    async def _write(self, body: bytes) -> None:
        async with self._sending:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    def _encode(self, item: Any) -> bytes:
        if self._events:
            return encode_event(item)
        if isinstance(item, bytes):
            return item
        if isinstance(item, str) and self._media_type != LINES:
            return item.encode()
        return JSON.encode(item) + b"\n"

    async def _fail(self, error: Exception) -> None:
        """Tell an event stream's client what went wrong, in an event named `error`."""
        problem, _ = problem_of(error, self._model.service, self._id)
        await self._write(encode_event(Event(event="error", data=problem)))
        if not isinstance(error, CliffracerError):
            raise ResponseBroken(f"{self._model.where}: the stream failed after it began") from error

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HEARTBEAT_S, self._start_beat, loop)

    def _start_beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat = loop.create_task(self._write(b":\n\n"))
        self._arm()
