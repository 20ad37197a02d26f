"""`Replies`: requests and their answers, over one inbox per connection."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from cliffracer_core.errors import ConnectionError, DeadlineExceeded, NoHandler
from cliffracer_core.limits import Deadlines
from cliffracer_core.messages import Message

from .headers import status_of

if TYPE_CHECKING:
    from .wire import Wire

__all__ = ["Replies"]

NO_RESPONDERS = "503"


class Replies:
    """Match replies to the requests that wait for them.

    nats-py's own `request` tells nobody its reply subject, and starts a task for each.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._prefix = ""
        self._count = 0
        self._deadlines: Deadlines
        self.waiting: dict[str, asyncio.Future[Message]] = {}
        """By the reply subject."""

    async def open(self) -> None:
        """Listen on a new inbox."""
        self._deadlines = Deadlines(asyncio.get_running_loop())
        self._prefix = f"{self._wire.connection.live().new_inbox()}."
        await self._wire.listen(f"{self._prefix}*", self._on_reply)

    async def request(self, message: Message, timeout_s: float) -> Message:
        """Send with `reply_to` filled in and return the first reply.

        Raises:
            NoHandler: nobody listens on the subject.
            DeadlineExceeded: no reply within `timeout_s` seconds.
            ConnectionError: not open, or closed meanwhile.
        """
        self._count += 1
        inbox = message.reply_to = f"{self._prefix}{self._count:x}"
        loop = asyncio.get_running_loop()
        future = self.waiting[inbox] = loop.create_future()
        expire = functools.partial(_expire, future, message.subject, timeout_s)
        bucket = self._deadlines.add(loop.time() + timeout_s, inbox, expire)
        try:
            await self._wire.publish(message)
            reply: Message = await future
            return reply
        except NoHandler:
            raise NoHandler(
                f"nobody listens on {message.subject!r}; is the service running, and is the method's name right"
            ) from None
        finally:
            self._deadlines.discard(bucket, inbox)
            self.waiting.pop(inbox, None)  # a later reply finds nobody and is ignored
            if future.done() and not future.cancelled():
                future.exception()  # it may have failed while the publish did

    def _on_reply(self, msg: Message) -> None:
        future = self.waiting.get(msg.subject)
        if future is None or future.done():
            return
        if status_of(msg.headers) == NO_RESPONDERS and not msg.body:
            future.set_exception(NoHandler())  # `request` knows the subject
        else:
            future.set_result(msg)

    def close(self, error: ConnectionError) -> None:
        """Fail what still waits."""
        if self._prefix:
            self._deadlines.close()
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(error)


def _expire(future: asyncio.Future[Message], subject: str, timeout_s: float) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded(f"no reply on {subject!r} within {timeout_s:g} s; raise the timeout"))
