"""CORS and compression as Starlette has them, at next to no cost for the requests they have nothing to do for.

Starlette's middleware builds objects and wraps `send` for every request; here only those get there that need it. The
others get a `Shortcut`, which an endpoint that has its whole response at hand goes around.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from operator import itemgetter
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipResponder, IdentityResponder

__all__ = ["Shortcut", "compressing", "cross_origin"]

_ORIGIN = b"origin"
_ACCEPT_ENCODING = b"accept-encoding"
_VARY = (b"vary", b"Origin")
_name = itemgetter(0)
_START, _BODY = "http.response.start", "http.response.body"


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % each for each in headers)


class Shortcut:
    """A `send` in front of another.

    Who has both messages of a response may add `extra`, or `lines`, to its headers and go on with `inner`, if its body
    is shorter than `below` bytes. Everybody else calls it.
    """

    __slots__ = ("inner", "scope")
    extra: tuple[tuple[bytes, bytes], ...] = ()
    lines: bytes = b""
    """`extra` as they are written, each ended by CRLF."""
    below: float = float("inf")

    def __init__(self, inner: Any, scope: Any) -> None:
        self.inner = inner
        self.scope = scope

    def __call__(self, message: Any) -> Awaitable[None]:
        """Send as ASGI 3."""
        raise NotImplementedError


class _Varying(Shortcut):
    __slots__ = ()
    extra = (_VARY,)
    lines = _lines(extra)

    def __call__(self, message: Any) -> Awaitable[None]:
        if message["type"] == _START:  # a copy: a response may be sent again, to another request
            message = {**message, "headers": [*message.get("headers", ()), _VARY]}
        return self.inner(message)  # type: ignore[no-any-return]  # ASGI's


def cross_origin(app: Any, **options: Any) -> Any:
    """Wrap an application in `CORSMiddleware`; a request without `Origin` gets no more than `Vary: Origin`.

    Args:
        app: the application.
        options: of `CORSMiddleware`.
    """
    whole = CORSMiddleware(app, **options)
    known = {each.encode("latin-1"): _allowing(whole, each) for each in whole.allow_origins}
    everybody = known.get(b"*")
    if everybody is not None and whole.allow_credentials:
        known, everybody = {}, None

    def call(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "http":
            return app(scope, receive, send)
        headers = scope["headers"]
        if _ORIGIN not in map(_name, headers):
            return app(scope, receive, _Varying(send, scope))
        origin = next(value for name, value in headers if name == _ORIGIN)
        allowing = None if scope["method"] == "OPTIONS" else known.get(origin, everybody)
        return whole(scope, receive, send) if allowing is None else app(scope, receive, allowing(send, scope))

    return call


def _allowing(whole: CORSMiddleware, origin: str) -> Callable[[Any, Any], Shortcut]:
    """Return what sends to pages of an origin that is allowed."""
    headers = {**whole.simple_headers, "Access-Control-Allow-Origin": origin}
    given = tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())

    class Allowing(Shortcut):
        __slots__ = ()
        extra = (*given, _VARY)
        lines = _lines(extra)

        def __call__(self, message: Any) -> Awaitable[None]:
            return whole.send(message, self.inner, Headers(scope=self.scope))

    return Allowing


def compressing(app: Any, minimum_size: int) -> Any:
    """Compress responses with gzip where the client takes it; one that is short, and whole, passes as it is.

    Args:
        app: the application.
        minimum_size: bytes from which a body is compressed.
    """

    class Compressed(_Compressed):
        __slots__ = ()
        below = minimum_size

    def call(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "http":
            return app(scope, receive, send)
        return app(scope, receive, Compressed(send, scope))

    return call


class _Compressed(Shortcut):
    """One response: its start is kept until the first part of the body tells whether to compress."""

    start: Any = None
    through: Any = None

    def __call__(self, message: Any) -> Awaitable[None]:
        if self.through is not None:
            return self.through(message)  # type: ignore[no-any-return]  # Starlette's
        if message["type"] == _START and self.start is None:
            self.start = message
            return _NOTHING
        return self._decide(message)

    async def _decide(self, message: Any) -> None:
        start = self.start
        if (
            start is not None
            and message["type"] == _BODY
            and not message.get("more_body", False)
            and len(message.get("body", b"")) < self.below
        ):
            self.through = self.inner
            await self.inner(start)
            await self.inner(message)
            return
        through = self.through = self._responder().send_with_compression
        if start is not None:
            # copies: a response may be sent again, to another request, and Starlette writes into both
            await through({**start, "headers": list(start.get("headers", ()))})
        await through({**message})

    def _responder(self) -> IdentityResponder:
        taken = b", ".join(value for name, value in self.scope["headers"] if name == _ACCEPT_ENCODING)
        made = GZipResponder if b"gzip" in taken else IdentityResponder
        responder = made(_unused, int(self.below))
        responder.send = self.inner
        return responder


async def _unused(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the application has been called already")


class _Nothing:
    """An awaitable that is done."""

    def __await__(self) -> Any:
        return iter(())


_NOTHING = _Nothing()
