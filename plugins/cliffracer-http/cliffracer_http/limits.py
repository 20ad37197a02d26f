"""Limits around any ASGI application: the size and pace of a request's body, the count of headers, a deadline.

Pure ASGI, and made for the common request, which has no body and is quick: it costs such a request one small
object. No timers are set per request; one that all share looks at those that wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cliffracer_core.errors import CliffracerError, DeadlineExceeded, MessageTooLarge, ServiceError

from .edge import correlation_of
from .errors import RequestTimeout
from .problems import send_problem

__all__ = ["BodyLimits", "Clock", "Exchange", "HeadersTooLarge", "Limits"]


class HeadersTooLarge(ServiceError, code="headers_too_large", status=431):
    """A request has more headers than are taken."""


class BodyLimits:
    """What a client may take and send for a body.

    Args:
        max_bytes: the whole body; None leaves it to the application.
        timeout_s: for each next part, where the application waits for it.
        min_rate: bytes per second that a body must come at, over the time the application waited for it and
            beyond `timeout_s`; 0 allows any pace. Without it a byte now and then would hold a request for ever.
    """

    __slots__ = ("clock", "max_bytes", "min_rate", "timeout_s")

    def __init__(self, max_bytes: int | None = 1024 * 1024, timeout_s: float = 20.0, min_rate: float = 64.0) -> None:
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.min_rate = min_rate
        self.clock = Clock(min(0.5, timeout_s / 10))


class Limits:
    """Wrap an application.

    Args:
        app: an ASGI 3 application.
        body: limits of request bodies.
        max_headers: a request with more is refused with 431.
        timeout_s: a response that has not begun by then is given up: the application is cancelled, and the client
            gets 504. None sets no deadline.

    A client that breaks a limit gets a problem (413, 408, 431); where the application handles errors of this
    package itself it may answer first. A connection on which a body is left unread is closed by the server.
    """

    def __init__(
        self, app: Any, body: BodyLimits | None = None, *, max_headers: int = 100, timeout_s: float | None = None
    ) -> None:
        self._app = app
        self._body = body or BodyLimits()
        self._max_headers = max_headers
        self._timeout_s = timeout_s
        self._clock = Clock(min(0.5, timeout_s / 10)) if timeout_s else None

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Serve as ASGI 3."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)  # type: ignore[no-any-return]  # any ASGI application
        return self._serve(scope, receive, send)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(self._body, scope, receive, send)
        try:
            if len(scope["headers"]) > self._max_headers:
                raise HeadersTooLarge(f"{len(scope['headers'])} headers; send at most {self._max_headers}")
            if self._clock is None:
                await self._app(scope, exchange.receive, exchange.send)
            else:
                await self._timed(self._clock, scope, exchange)
        except (MessageTooLarge, RequestTimeout, HeadersTooLarge, DeadlineExceeded) as error:
            if exchange.started:
                raise
            await _answer(scope, send, error)

    async def _timed(self, clock: Clock, scope: Any, exchange: Exchange) -> None:
        assert self._timeout_s is not None
        ticket = exchange.ticket = clock.enter(self._timeout_s)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not clock.is_late(ticket):
                raise
            raise DeadlineExceeded(f"nothing was answered within {self._timeout_s:g} s") from None
        finally:
            clock.leave(ticket)


class Exchange:
    """One request on its way: `receive` and `send` that keep count."""

    __slots__ = ("_ended", "_limits", "_receive", "_scope", "_send", "_size", "_waited_s", "started", "ticket")

    def __init__(self, limits: BodyLimits, scope: Any, receive: Any, send: Any) -> None:
        self._limits = limits
        self._scope = scope
        self._receive = receive
        self._send = send
        self._size = -1
        self._waited_s = 0.0
        self._ended = False
        self.started = False
        self.ticket: _Ticket | None = None

    def send(self, message: Any) -> Any:
        """Pass a message on."""
        if not self.started:
            self.started = True
            if self.ticket is not None:
                self.ticket.end = float("inf")
        return self._send(message)

    def receive(self) -> Any:
        """Pass the next message on; see `BodyLimits` for what raises."""
        return self._receive() if self._ended else self._next()

    async def _next(self) -> Any:
        limits = self._limits
        if self._size < 0:
            self._size = 0
            self._check_length()
        clock = limits.clock
        began = clock.time()
        timeout_s = limits.timeout_s
        if limits.min_rate:
            timeout_s = min(timeout_s, limits.timeout_s + self._size / limits.min_rate - self._waited_s)
        ticket = clock.enter(timeout_s)
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if not clock.is_late(ticket):
                raise
            self._ended = True
            raise RequestTimeout("the request's body came too slowly; send it faster, or in parts") from None
        finally:
            clock.leave(ticket)
        self._waited_s += clock.time() - began
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._ended = True
        self._count(len(message.get("body", b"")))
        return message

    def _check_length(self) -> None:
        limit = self._limits.max_bytes
        if limit is None:
            return
        for name, value in self._scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value[:20]) > limit):
                raise _too_large(limit)

    def _count(self, size: int) -> None:
        self._size += size
        limit = self._limits.max_bytes
        if limit is not None and self._size > limit:
            raise _too_large(limit)


class _Ticket:
    __slots__ = ("end", "late", "task")

    def __init__(self, task: asyncio.Task[Any], end: float) -> None:
        self.task = task
        self.end = end
        self.late = False


class Clock:
    """Cancels tasks that wait for too long; all share one timer, which runs while somebody waits.

    Args:
        period_s: how often it looks; a wait may last so much longer than it was given.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._tickets: set[_Ticket] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.time: Callable[[], float] = self._first_time

    def _first_time(self) -> float:
        return asyncio.get_running_loop().time()

    def enter(self, timeout_s: float) -> _Ticket:
        """Begin to wait in the current task."""
        loop = self._loop
        if loop is None or loop.is_closed():
            loop = self._loop = asyncio.get_running_loop()
            self.time, self._timer = loop.time, None
        task = asyncio.current_task(loop)
        assert task is not None, "a request runs in a task"
        ticket = _Ticket(task, loop.time() + timeout_s)
        self._tickets.add(ticket)
        if self._timer is None:
            self._timer = loop.call_later(self._period_s, self._look)
        return ticket

    def leave(self, ticket: _Ticket) -> None:
        """Wait no more."""
        self._tickets.discard(ticket)

    def is_late(self, ticket: _Ticket) -> bool:
        """Tell whether it was this clock that cancelled the task, and take that back."""
        if ticket.late:
            ticket.task.uncancel()
        return ticket.late

    def _look(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        for ticket in [each for each in self._tickets if each.end <= now]:
            self._tickets.discard(ticket)
            ticket.late = True
            ticket.task.cancel()
        self._timer = self._loop.call_later(self._period_s, self._look) if self._tickets else None


def _too_large(limit: int) -> MessageTooLarge:
    return MessageTooLarge(f"body is longer than {limit} bytes; send less, or set 'max_body_bytes'")


async def _answer(scope: Any, send: Any, error: CliffracerError) -> None:
    async def closing(message: Any) -> None:
        if message["type"] == "http.response.start" and scope["http_version"] not in ("2", "3"):
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    await send_problem(closing, error, "", correlation_of(scope), head=scope["method"] == "HEAD")
