"""How a socket's messages become arguments of a handler, and its handler is called."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
from cliffracer_http.edge import admit

from cliffracer_core.context import MessageContext
from cliffracer_core.errors import ConfigurationError, ValidationError
from cliffracer_core.handlers import Declaration
from cliffracer_core.interfaces import Entry, Signature
from cliffracer_core.messages import JSON, invalid

from .socket import WebSocket

__all__ = ["KIND", "STATE", "Arguments", "Caller", "socket_of"]

KIND = "websocket"
STATE = "websocket"
_UNTYPED = "websocket"
"""A parameter of this name gets the socket, annotated or not."""


class Arguments:
    """Where a handler's arguments come from: its path, and the message.

    Args:
        declaration: the handler.
        signature: its arguments, without those injected.
        names: parameters of its path.

    Raises:
        ConfigurationError: the path has a parameter that the handler lacks.
    """

    def __init__(self, declaration: Declaration, signature: Signature, names: Collection[str] = ()) -> None:
        fields = {each.name: each for each in msgspec.structs.fields(signature.arguments)}
        missing = [name for name in names if name not in fields]
        if missing:
            raise ConfigurationError(
                f"handler {declaration.where!r}: its path has {missing[0]!r}, which is no parameter; add it"
            )
        self.names = set(fields)
        self.wants_socket = _UNTYPED in fields
        self._path = _struct({name: fields[name] for name in names})
        self._convert = bool(names)
        rest = {name: each for name, each in fields.items() if name not in names and name != _UNTYPED}
        self.whole = next(iter(rest)) if len(rest) == 1 and _takes_whole(next(iter(rest.values())).type) else None
        target = _struct(rest) if self.whole is None else rest[self.whole].type
        self.decode: Callable[[bytes], Any] = JSON.decoder(target)

    def from_path(self, values: Mapping[str, str]) -> dict[str, object]:
        """Convert what stands in the path.

        Raises:
            ValidationError: naming the parameter.
        """
        if not self._convert:
            return {}
        try:
            return msgspec.structs.asdict(msgspec.convert(dict(values), self._path, strict=False))
        except msgspec.ValidationError as error:
            raise invalid(error) from None

    def from_message(self, body: bytes) -> dict[str, object]:
        """Decode a message into arguments by name.

        Raises:
            ValidationError: naming the argument, or saying that it is not JSON.
        """
        found = self.decode(body)
        return msgspec.structs.asdict(found) if self.whole is None else {self.whole: found}


def _struct(fields: Mapping[str, msgspec.structs.FieldInfo]) -> type[msgspec.Struct]:
    members: list[Any] = []
    for name, each in fields.items():
        if each.required:
            members.append((name, each.type))
        elif each.default_factory is not msgspec.NODEFAULT:
            members.append((name, each.type, msgspec.field(default_factory=each.default_factory)))
        else:
            members.append((name, each.type, each.default))
    return msgspec.defstruct("Arguments", members, kw_only=True)


def _takes_whole(type: Any) -> bool:
    """Tell whether a lone parameter takes the whole message: all but text, numbers and such do."""
    try:
        msgspec.convert({}, type)
    except msgspec.ValidationError as error:
        return "got `object`" not in str(error)
    return True


def socket_of(context: MessageContext) -> WebSocket:
    """Give a handler its socket.

    Raises:
        ValidationError: the call did not come by one.
    """
    found = context.state.get(STATE)
    if not isinstance(found, WebSocket):
        raise ValidationError(
            f"handler {context.service}.{context.handler} wants a WebSocket and was called by {context.kind!r}; "
            f"connect to its path"
        )
    return found


class Caller:
    """Calls handlers for one socket.

    Args:
        websocket: whose calls they are.
        path: of its route.
        timeout_s: what a call for a message may take.
    """

    def __init__(self, websocket: WebSocket, path: str, timeout_s: float) -> None:
        self._state = {STATE: websocket}
        self._path = path
        self._timeout_s = timeout_s
        self.headers: dict[str, str]
        """Of the handshake's headers those that may enter."""
        self.headers, self._correlation_id, *_ = admit(websocket.scope["headers"])

    def _context(self, entry: Entry, arguments: dict[str, object]) -> MessageContext:
        service, _, handler = entry.name.partition(".")
        return MessageContext(
            kind=KIND, service=service, handler=handler, subject=self._path, pattern=self._path, headers=self.headers,
            correlation_id=self._correlation_id, arguments=arguments, state=dict(self._state),
        )  # fmt: skip

    async def attend(self, entry: Entry, arguments: dict[str, object]) -> object:
        """Run a handler for as long as the socket is open; errors as `Entry.attend`."""
        return await entry.attend(self._context(entry, arguments))

    async def call(self, entry: Entry, arguments: dict[str, object]) -> object:
        """Run a handler once; errors as `Entry.call`."""
        context = self._context(entry, arguments)
        context.deadline = time.monotonic() + self._timeout_s
        return await entry.call(context)
