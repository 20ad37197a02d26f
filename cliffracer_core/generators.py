"""Handlers that are async generators: their reply is what they yield."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .context import current_context
from .errors import ConfigurationError, ServiceError
from .handlers import Declaration

__all__ = ["STREAM", "check_generator", "into_stream"]

STREAM = "core.stream"
"""Key in a context's `state` of the function that takes what a handler yields, and returns when all is sent."""


def check_generator(declaration: Declaration) -> bool:
    """Tell whether a handler is an async generator.

    Raises:
        ConfigurationError: it is a generator that cannot be served.
    """
    if inspect.isgeneratorfunction(declaration.function):
        raise ConfigurationError(
            f"handler {declaration.where!r} is a generator; make it 'async def' to stream its reply, or return a list"
        )
    streams = inspect.isasyncgenfunction(declaration.function)
    kinds = {each.kind for each in declaration.marks if each.owner == "core"}
    if streams and "event" in kinds:
        raise ConfigurationError(f"handler {declaration.where!r} is a generator, and an event has no reply to stream")
    if streams and "handle_errors" in kinds:
        raise ConfigurationError(
            f"handler {declaration.where!r} streams its reply, and @handle_errors has one result; "
            f"catch the errors inside the generator"
        )
    return streams


def into_stream(function: Callable[..., Any], where: str) -> Callable[..., Any]:
    """Hand the generator to whoever sends its items; it runs in the task and the context of the call."""

    async def call(**arguments: Any) -> object:
        context = current_context()
        send_all = None if context is None else context.state.get(STREAM)
        if not callable(send_all):
            raise ServiceError(f"{where} streams its reply, which this kind of call cannot carry; use stream()")
        return await send_all(function(**arguments))

    return call
