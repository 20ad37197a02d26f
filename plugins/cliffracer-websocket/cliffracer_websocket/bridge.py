"""`@event(..., to="room:{order_id}")`: what a service hears of the broker, its sockets hear."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from cliffracer_core.context import MessageContext
from cliffracer_core.errors import ConfigurationError, ValidationError
from cliffracer_core.handlers import Bridge
from cliffracer_core.interfaces import Call, Middleware
from cliffracer_core.messages import JSON, codec_for

from .processor import RealTimeStreamProcessor

__all__ = ["Template", "bridge"]

_FIELD = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class Template:
    """A name with fields of an event in braces, such as `room:{order_id}` or `user:{order.customer}`.

    Args:
        where: the handler, for errors.
        text: the template.

    Raises:
        ConfigurationError: a brace without its partner, or a field that is no name.
    """

    def __init__(self, where: str, text: str) -> None:
        self._where, self._text = where, text
        self._parts: list[tuple[str, tuple[str, ...]]] = []
        end = 0
        for match in _FIELD.finditer(text):
            if not _NAME.fullmatch(match[1]):
                raise ConfigurationError(f"handler {where!r}: {text!r} has {match[0]!r}; name a field of the event")
            self._parts.append((text[end : match.start()], tuple(match[1].split("."))))
            end = match.end()
        self._tail = text[end:]
        if not text or "{" in _FIELD.sub("", text) or "}" in _FIELD.sub("", text):
            raise ConfigurationError(f"handler {where!r}: {text!r} is no name of a group; write 'room:{{order_id}}'")

    def fill(self, context: MessageContext) -> str:
        """Return the name for one event.

        Raises:
            ValidationError: the event lacks a field, or has something else there than text or a number.
        """
        return "".join(lead + self._value(context, path) for lead, path in self._parts) + self._tail

    def _value(self, context: MessageContext, path: tuple[str, ...]) -> str:
        for source in _sources(context):
            value = source
            for name in path:
                value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
            if value is not None and not isinstance(value, dict | list | tuple | set | msgspec.Struct):
                return str(msgspec.to_builtins(value))
        field = ".".join(path)
        raise ValidationError(
            f"event on {context.subject!r} has no field {field!r}, which {self._text!r} of {self._where!r} needs",
            details={"field": field},
        )


def _sources(context: MessageContext) -> Any:
    """Yield where a field may be: the arguments, the one argument that is the event, the body."""
    arguments = context.arguments or {}
    yield arguments
    if len(arguments) == 1:
        yield next(iter(arguments.values()))
    yield codec_for(context.headers).decoder(Any)(context.body or b"{}")


def bridge(where: str, options: Bridge, processor: Callable[[], RealTimeStreamProcessor]) -> Middleware:
    """Make the layer that passes an event on once its handler is done: what that returned, else the event.

    It stands outside transactions, so that nothing is shown which was rolled back.
    """
    group = Template(where, options.to)
    key = None if options.key is None else Template(where, options.key)

    def wrap(next: Call) -> Call:
        async def call(context: MessageContext) -> object:
            result = await next(context)
            message = _event(context) if result is None else result
            await processor().broadcast_to_group(
                group.fill(context), message, key=None if key is None else key.fill(context)
            )
            return result

        return call

    return Middleware("guard", 900, wrap, f"to {options.to}")


def _event(context: MessageContext) -> object:
    codec = codec_for(context.headers)
    if codec is JSON and context.body:
        try:
            return msgspec.Raw(msgspec.json.format(context.body, indent=-1))  # one line, and really JSON
        except msgspec.DecodeError as error:
            raise ValidationError(f"event on {context.subject!r} is not valid JSON: {error}") from None
    return codec.decoder(Any)(context.body) if context.body else None
