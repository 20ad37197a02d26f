"""Receive what is there already without the precautions that waiting takes."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any

__all__ = ["begin"]


def begin(receive: Any) -> tuple[Any, Any]:
    """Take the next ASGI message if it has come.

    Most bodies come together with their head: to set a time limit for them would cost more than to read them.

    Args:
        receive: the server's.

    Returns:
        The message, and None; or None, and a `receive` to use in place of the server's, which waits for it.
    """
    asked = receive()
    step = getattr(asked, "send", None)
    if step is None:
        return None, _after(asked, receive)  # an awaitable, but no coroutine
    try:
        waits_for = step(None)
    except StopIteration as stop:
        return stop.value, None
    return None, _after(_resume(asked, waits_for), receive)


def _after(first: Awaitable[Any], receive: Any) -> Callable[[], Awaitable[Any]]:
    """Make a `receive` that gives `first` first."""
    pending: list[Awaitable[Any]] = [first]

    def next_message() -> Awaitable[Any]:
        return pending.pop() if pending else receive()

    return next_message


@types.coroutine
def _resume(asked: Any, waits_for: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that has been driven to where it first waits; as `yield from` would (PEP 380)."""
    try:
        while True:
            try:
                given = yield waits_for
            except GeneratorExit:
                asked.close()
                raise
            except BaseException as error:
                waits_for = asked.throw(error)
            else:
                waits_for = asked.send(given)
    except StopIteration as stop:
        return stop.value
