"""`Replies`: requests and their answers, over one inbox per connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from cliffracer_core.deadlines import Deadlines
from cliffracer_core.errors import ConnectionError, DeadlineExceeded, NoHandler
from cliffracer_core.messages import Message

from .headers import status_of

if TYPE_CHECKING:
    from .wire import Wire

__all__ = ["Replies"]

NO_RESPONDERS = "503"


class _Waiting(msgspec.Struct, eq=False):
    """A request that has no reply yet."""

    deadline: float
    """Point on the loop's clock."""
    future: asyncio.Future[Message]
    subject: str
    timeout_s: float

    def expire(self) -> None:
        """Fail the request because its time is over."""
        if not self.future.done():
            text = f"no reply on {self.subject!r} within {self.timeout_s:g} s; raise the timeout"
            self.future.set_exception(DeadlineExceeded(text))


class Replies:
    """Match replies to the requests that wait for them.

    nats-py's own `request` tells nobody its reply subject, and starts a task for each.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._put = wire.put
        self._prefix = b""
        self._count = 0
        self._loop: asyncio.AbstractEventLoop
        self._deadlines: Deadlines[_Waiting]
        self._waiting: dict[object, _Waiting] = {}

    async def open(self) -> None:
        """Listen on a new inbox."""
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)
        self._waiting = self._deadlines.entries
        inbox = self._wire.connection.live().new_inbox()
        self._prefix = f"{inbox}.".encode()
        await self._wire.listen_raw(f"{inbox}.*", self._on_reply)

    async def request(self, message: Message, timeout_s: float) -> Message:
        """Send with `reply_to` filled in and return the first reply.

        Raises:
            NoHandler: nobody listens on the subject.
            DeadlineExceeded: no reply within `timeout_s` seconds.
            ConnectionError: not open, or closed meanwhile.
        """
        self._count += 1
        key = b"%b%x" % (self._prefix, self._count)
        message.reply_to = key.decode()
        full = self._put(message, key)
        deadline = self._loop.time() + timeout_s
        future: asyncio.Future[Message] = self._loop.create_future()
        self._waiting[key] = _Waiting(deadline, future, message.subject, timeout_s)
        if deadline < self._deadlines.next_at:
            self._deadlines.watch(deadline)
        try:
            if full is not None:
                await full
            return await future
        finally:
            self._waiting.pop(key, None)  # a later reply finds nobody and is ignored
            if full is not None and future.done() and not future.cancelled():
                future.exception()  # it may have failed while the publish did

    def _on_reply(self, subject: bytes, reply_to: bytes | None, headers: Mapping[str, str] | None, body: bytes) -> None:
        waiting = self._waiting.get(subject)
        if waiting is None or waiting.future.done():
            return
        if headers is not None and not body and status_of(headers) == NO_RESPONDERS:
            waiting.future.set_exception(
                NoHandler(
                    f"nobody listens on {waiting.subject!r}; is the service running, and is the method's name right"
                )
            )
        else:
            reply_text = None if reply_to is None else reply_to.decode("utf-8", "replace")
            waiting.future.set_result(Message(subject.decode(), body, headers, reply_text))

    def close(self, error: ConnectionError) -> None:
        """Fail what still waits."""
        for waiting in list(self._waiting.values()):
            if not waiting.future.done():
                waiting.future.set_exception(error)
        if self._prefix:
            self._deadlines.close()
