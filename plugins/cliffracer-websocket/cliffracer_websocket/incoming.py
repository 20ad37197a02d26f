"""`Incoming`: messages of clients by their `type`, decoded for the function that handles them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from cliffracer_core.errors import ConfigurationError, NotFoundError
from cliffracer_core.interfaces import Entry, Signature
from cliffracer_core.messages import JSON
from cliffracer_core.validation import resolve_annotations

if TYPE_CHECKING:
    from .calls import Caller

__all__ = ["Incoming"]

Adopt = Callable[[str, Callable[..., Any]], tuple[Entry, Signature]]

_CLIENT = "client_id"


class _Head(msgspec.Struct):
    type: str


class _Handler(msgspec.Struct):
    function: Callable[..., Any]
    message: str
    """The parameter that gets the message."""
    decode: Callable[[bytes], Any]
    wants_client: bool
    more: list[str]
    """Parameters that only a service can give."""
    entry: Entry | None = None
    """Where a service compiled it."""


class Incoming:
    """Functions by the `type` of the messages they take; in a service that runs each is a handler of its own."""

    def __init__(self) -> None:
        self._handlers: dict[str, _Handler] = {}
        self._head = JSON.decoder(_Head)
        self._adopt: Adopt | None = None
        self._place = ""

    def copy(self) -> Incoming:
        """Return one with the same functions."""
        new = Incoming()
        for name, handler in self._handlers.items():
            new._handlers[name] = msgspec.structs.replace(handler, entry=None)
        return new

    def serve(self, place: str, adopt: Adopt) -> None:
        """Compile the functions, and those registered from now on, as handlers of a service.

        Args:
            place: the processor's name.
            adopt: `Wiring.adopt`.

        Raises:
            ConfigurationError: a function has a parameter that nothing gives.
        """
        self._place, self._adopt = place, adopt
        for name, handler in self._handlers.items():
            self._compile(name, handler, adopt)

    def _compile(self, name: str, handler: _Handler, adopt: Adopt) -> None:
        entry, signature = adopt(f"{self._place}.{name}", handler.function)
        taken = {each.name for each in msgspec.structs.fields(signature.arguments)} - {handler.message, _CLIENT}
        if taken:
            raise ConfigurationError(
                f"processor {name!r}: nothing gives parameter {min(taken)!r}; it gets the message, {_CLIENT!r}, and "
                f"what installed plugins inject by its type"
            )
        handler.entry = entry

    def register(self, name: str, handler: Callable[..., Any]) -> None:
        """Handle messages of a type; one that was registered before is replaced.

        Raises:
            ConfigurationError: the handler cannot be called with a message, or its annotation cannot be decoded.
        """
        where = f"processor {name!r}"
        if name in self._handlers and self._handlers[name].function == handler:
            return
        if not callable(handler):
            raise ConfigurationError(f"{where} is {handler!r}; give a function of one parameter")
        names = [each for each in inspect.signature(handler).parameters if each != _CLIENT]
        hints = resolve_annotations(where, handler if inspect.isroutine(handler) else type(handler).__call__)
        if not names or any(each not in hints for each in names[1:]):
            raise ConfigurationError(
                f"{where}: {getattr(handler, '__qualname__', handler)} has parameters {names}; it gets the message, "
                f"{_CLIENT!r} where it has a parameter of that name, and in a service what is injected by its type"
            )
        try:
            decode = JSON.decoder(hints.get(names[0], Any))
        except TypeError as error:
            raise ConfigurationError(f"{where}: parameter {names[0]!r} cannot be decoded: {error}") from error
        wants_client = _CLIENT in inspect.signature(handler).parameters
        new = _Handler(handler, names[0], decode, wants_client, names[1:])
        if self._adopt is not None:
            self._compile(name, new, self._adopt)
        self._handlers[name] = new

    async def handle(self, client_id: str, body: bytes, caller: Caller | None = None) -> object:
        """Decode a message and return what its handler returns.

        Args:
            client_id: who sent it.
            body: the message.
            caller: the client's, where there is a service.

        Raises:
            ValidationError: it is no JSON object with a `type`, or does not fit the handler's annotation.
            NotFoundError: nobody handles its type.
            CliffracerError: what the handler's chain raised.
        """
        type = self._head(body).type
        return await self.call(type, client_id, body, caller)

    async def call(self, type: str, client_id: str, body: bytes, caller: Caller | None = None) -> object:
        """Run the handler of a type on a body that need not say it; errors as `handle`."""
        handler = self._handlers.get(type)
        if handler is None:
            known = ", ".join(sorted(self._handlers)) or "none"
            raise NotFoundError(f"message type {type[:60]!r} has no processor; known are {known}")
        arguments: dict[str, object] = {handler.message: handler.decode(body)}
        if handler.wants_client:
            arguments[_CLIENT] = client_id
        if handler.entry is not None and caller is not None:
            return await caller.call(handler.entry, arguments)
        if handler.more:
            raise ConfigurationError(f"processor {type!r} wants {handler.more[0]!r}, which only a service gives")
        message = arguments.pop(handler.message)
        result = handler.function(message, **arguments)
        return await result if isinstance(result, Awaitable) else result
