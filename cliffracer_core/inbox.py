"""Where a caller gets more than one message for a request: one subscription, with an address for each request."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

from .errors import CliffracerError
from .interfaces import Transport
from .messages import Message

__all__ = ["Box", "Inbox", "new_prefix"]


def new_prefix() -> str:
    """Make a subject that nobody can guess, to put addresses under."""
    return f"_INBOX.{os.urandom(12).hex()}"


class Box:
    """What has come under one address and was not taken yet, in order.

    Args:
        address: the subject to send to.
        forget: takes the address out of its inbox.
    """

    def __init__(self, address: str, forget: Callable[[str], object]) -> None:
        self.address = address
        self._forget = forget
        self._messages: deque[Message] = deque()
        self._failure: CliffracerError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, message: Message) -> None:
        """Add a message."""
        self._messages.append(message)
        self._wake()

    def fail(self, error: CliffracerError) -> None:
        """Say that no more will come: raised once all that came is taken."""
        self._failure = error
        self._wake()

    async def get(self, timeout_s: float) -> Message:
        """Take the next message.

        Raises:
            TimeoutError: none came within `timeout_s` seconds.
            CliffracerError: what `fail` was told.
        """
        if not self._messages:
            if self._failure is None:
                self._waiter = asyncio.get_running_loop().create_future()
                async with asyncio.timeout(timeout_s):
                    await self._waiter
            if not self._messages and self._failure is not None:
                raise self._failure
        return self._messages.popleft()

    def close(self) -> None:
        """Take no more; safe to call twice."""
        self._forget(self.address)
        self._messages.clear()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Inbox:
    """The boxes of one caller on one transport.

    It subscribes with its first box, and once: a subscription for each request would cost a round trip,
    and in a cluster its interest could arrive after the first reply. The transport's `close` ends it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._prefix = ""
        self._count = 0
        self._opening = asyncio.Lock()
        self.boxes: dict[str, Box] = {}
        """Those in use, by address."""

    async def open(self) -> Box:
        """Return a new box; whoever asked closes it.

        Raises:
            ConnectionError: the transport is closed.
        """
        async with self._opening:
            if not self._prefix:
                prefix = new_prefix()
                await self._transport.subscribe(f"{prefix}.*", self._on_message)
                self._prefix = prefix
        self._count += 1
        address = f"{self._prefix}.{self._count:x}"
        box = self.boxes[address] = Box(address, lambda ended: self.boxes.pop(ended, None))
        return box

    def _on_message(self, message: Message) -> None:
        box = self.boxes.get(message.subject)
        if box is not None:  # else it was given up, and this was on its way
            box.put(message)
