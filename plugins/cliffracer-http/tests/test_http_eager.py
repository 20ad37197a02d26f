"""Receiving what is there already, and going on with what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest
from cliffracer_http.eager import begin

FIRST, SECOND = {"type": "http.request", "body": b"1", "more_body": True}, {"type": "http.request", "body": b"2"}


def receiving(*messages: Any, gate: asyncio.Event | None = None) -> Any:
    """Return a server's `receive`, which waits for the gate before each message."""
    left = list(messages)

    async def receive() -> Any:
        if gate is not None:
            await gate.wait()
        return left.pop(0)

    return receive


async def test_a_message_that_is_there_is_taken_without_waiting() -> None:
    """What has come is returned at once, and the next one is the server's."""
    receive = receiving(FIRST, SECOND)
    assert begin(receive) == (FIRST, None)
    assert await receive() is SECOND


async def test_a_message_that_comes_later_is_waited_for_once() -> None:
    """The wait that was begun goes on; no message is lost, none comes twice."""
    gate = asyncio.Event()
    message, waiting = begin(receiving(FIRST, SECOND, gate=gate))
    assert message is None
    asyncio.get_running_loop().call_soon(gate.set)
    assert [await waiting(), await waiting()] == [FIRST, SECOND]


async def test_a_wait_that_was_begun_can_be_cut() -> None:
    """A timeout reaches the coroutine that waits, which cleans up."""
    cleaned = []

    async def receive() -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    _, waiting = begin(receive)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await waiting()
    assert cleaned == [True]


async def test_an_awaitable_of_another_kind_is_awaited() -> None:
    """ASGI promises an awaitable, not a coroutine."""

    class Given:
        def __await__(self) -> Generator[Any, Any, Any]:
            return asyncio.sleep(0, FIRST).__await__()

    message, waiting = begin(Given)
    assert message is None
    assert await waiting() is FIRST


async def test_what_a_server_raises_comes_out() -> None:
    """At once or after a wait, the error is the server's own."""

    async def broken(first_waits: bool) -> Any:
        if first_waits:
            await asyncio.sleep(0)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        begin(lambda: broken(False))
    _, waiting = begin(lambda: broken(True))
    with pytest.raises(OSError, match="gone"):
        await waiting()
