"""CORS and compression as Starlette has them, at next to no cost for the requests they have nothing to do for.

Starlette's middleware builds objects and wraps `send` for every request; here only those get there that need it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipResponder, IdentityResponder

__all__ = ["compressing", "cross_origin"]

_ORIGIN = b"origin"
_ACCEPT_ENCODING = b"accept-encoding"
_VARY = (b"vary", b"Origin")
_START, _BODY = "http.response.start", "http.response.body"


def cross_origin(app: Any, **options: Any) -> Any:
    """Wrap an application in `CORSMiddleware`; a request without `Origin` gets no more than `Vary: Origin`.

    Args:
        app: the application.
        options: of `CORSMiddleware`.
    """
    whole = CORSMiddleware(app, **options)

    def call(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "http":
            return app(scope, receive, send)
        for name, _ in scope["headers"]:
            if name == _ORIGIN:
                return whole(scope, receive, send)

        def varying(message: Any) -> Any:
            if message["type"] == _START:  # a copy: a response may be sent again, to another request
                message = {**message, "headers": [*message.get("headers", ()), _VARY]}
            return send(message)

        return app(scope, receive, varying)

    return call


def compressing(app: Any, minimum_size: int) -> Any:
    """Compress responses with gzip where the client takes it; one that is short, and whole, passes as it is.

    Args:
        app: the application.
        minimum_size: bytes from which a body is compressed.
    """

    def call(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "http":
            return app(scope, receive, send)
        return app(scope, receive, _Compressed(scope, send, minimum_size).send)

    return call


class _Compressed:
    """One response: its start is kept until the first part of the body tells whether to compress."""

    __slots__ = ("_minimum_size", "_scope", "_send", "_start", "_through")

    def __init__(self, scope: Any, send: Any, minimum_size: int) -> None:
        self._scope = scope
        self._send = send
        self._minimum_size = minimum_size
        self._start: Any = None
        self._through: Any = None

    def send(self, message: Any) -> Awaitable[None]:
        if self._through is not None:
            return self._through(message)  # type: ignore[no-any-return]  # Starlette's
        if message["type"] == _START and self._start is None:
            self._start = message
            return _NOTHING
        return self._decide(message)

    async def _decide(self, message: Any) -> None:
        start = self._start
        if (
            start is not None
            and message["type"] == _BODY
            and not message.get("more_body", False)
            and len(message.get("body", b"")) < self._minimum_size
        ):
            self._through = self._send
            await self._send(start)
            await self._send(message)
            return
        through = self._through = self._responder().send_with_compression
        if start is not None:
            # copies: a response may be sent again, to another request, and Starlette writes into both
            await through({**start, "headers": list(start.get("headers", ()))})
        await through({**message})

    def _responder(self) -> IdentityResponder:
        taken = b", ".join(value for name, value in self._scope["headers"] if name == _ACCEPT_ENCODING)
        made = GZipResponder if b"gzip" in taken else IdentityResponder
        responder = made(_unused, self._minimum_size)
        responder.send = self._send
        return responder


async def _unused(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the application has been called already")


class _Nothing:
    """An awaitable that is done."""

    def __await__(self) -> Any:
        return iter(())


_NOTHING = _Nothing()
