"""Wait for what a test expects, by events and never by a sleep in hope."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, overload

__all__ = ["TIMEOUT_S", "Collector", "eventually", "unique"]

T = TypeVar("T")

TIMEOUT_S = 10.0
"""Seconds after which a test gives up; nothing on a working machine takes so long."""


def unique() -> str:
    """Make a token no other test uses: a first token, a service's name, a key's prefix."""
    return f"t{uuid.uuid4().hex[:12]}"


@overload
async def eventually(predicate: Callable[[], Coroutine[Any, Any, T]], timeout_s: float = TIMEOUT_S) -> T: ...
@overload
async def eventually(predicate: Callable[[], T], timeout_s: float = TIMEOUT_S) -> T: ...
async def eventually(predicate: Callable[[], object], timeout_s: float = TIMEOUT_S) -> object:
    """Call `predicate` until what it returns, or what that gives when awaited, is true; return that.

    Args:
        predicate: a plain or an async function, asked about every 10 ms.
        timeout_s: seconds.

    Raises:
        AssertionError: it was not true within `timeout_s`.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    while True:
        result = predicate()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        if loop.time() > end:
            raise AssertionError(f"{predicate!r} still gives {result!r} after {timeout_s:g} s")
        await asyncio.sleep(0.01)


class Collector(Generic[T]):
    """A callback that keeps what it is called with."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self._changed = asyncio.Event()

    def __call__(self, item: T) -> None:
        """Keep one."""
        self.items.append(item)
        self._changed.set()

    async def at_least(self, count: int, timeout_s: float = TIMEOUT_S) -> list[T]:
        """Return all there are, once there are `count`.

        Raises:
            AssertionError: there were fewer within `timeout_s` seconds.
        """
        await self._wait(lambda: len(self.items) >= count, f"{count} did not come", timeout_s)
        return self.items

    async def until(self, wanted: Callable[[T], bool], timeout_s: float = TIMEOUT_S) -> T:
        """Return the first that is `wanted`, once there is one.

        Raises:
            AssertionError: there was none within `timeout_s` seconds.
        """
        await self._wait(lambda: any(map(wanted, self.items)), "what is wanted did not come", timeout_s)
        return next(filter(wanted, self.items))

    async def _wait(self, enough: Callable[[], bool], complaint: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not enough():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{complaint} within {timeout_s:g} s, but {self.items!r}") from None
