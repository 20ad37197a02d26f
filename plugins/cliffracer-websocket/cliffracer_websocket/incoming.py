"""`Incoming`: messages of clients by their `type`, decoded for the function that handles them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from cliffracer_core.errors import ConfigurationError, NotFoundError
from cliffracer_core.messages import JSON
from cliffracer_core.validation import resolve_annotations

__all__ = ["Incoming"]

_CLIENT = "client_id"


class _Head(msgspec.Struct):
    type: str


class _Handler(msgspec.Struct, frozen=True):
    function: Callable[..., Any]
    decode: Callable[[bytes], Any]
    wants_client: bool


class Incoming:
    """Functions by the `type` of the messages they take."""

    def __init__(self) -> None:
        self._handlers: dict[str, _Handler] = {}
        self._head = JSON.decoder(_Head)

    def register(self, name: str, handler: Callable[..., Any]) -> None:
        """Handle messages of a type; one that was registered before is replaced.

        Raises:
            ConfigurationError: the handler cannot be called with a message, or its annotation cannot be decoded.
        """
        where = f"processor {name!r}"
        if not callable(handler):
            raise ConfigurationError(f"{where} is {handler!r}; give a function of one parameter")
        names = [each for each in inspect.signature(handler).parameters if each != _CLIENT]
        if len(names) != 1:
            raise ConfigurationError(
                f"{where}: {getattr(handler, '__qualname__', handler)} has parameters {names}; "
                f"it gets the message, and {_CLIENT!r} where it has a parameter of that name"
            )
        hints = resolve_annotations(where, handler if inspect.isroutine(handler) else type(handler).__call__)
        hint = hints.get(names[0], Any)
        try:
            decode = JSON.decoder(hint)
        except TypeError as error:
            raise ConfigurationError(f"{where}: parameter {names[0]!r} cannot be decoded: {error}") from error
        wants_client = _CLIENT in inspect.signature(handler).parameters
        self._handlers[name] = _Handler(handler, decode, wants_client)

    async def handle(self, client_id: str, body: bytes) -> object:
        """Decode a message and return what its handler returns.

        Raises:
            ValidationError: it is no JSON object with a `type`, or does not fit the handler's annotation.
            NotFoundError: nobody handles its type.
        """
        type = self._head(body).type
        return await self.call(type, client_id, body)

    async def call(self, type: str, client_id: str, body: bytes) -> object:
        """Run the handler of a type on a body that need not say it; errors as `handle`."""
        handler = self._handlers.get(type)
        if handler is None:
            known = ", ".join(sorted(self._handlers)) or "none"
            raise NotFoundError(f"message type {type[:60]!r} has no processor; known are {known}")
        message = handler.decode(body)
        result = handler.function(message, client_id=client_id) if handler.wants_client else handler.function(message)
        return await result if isinstance(result, Awaitable) else result
