"""`Wire`: checked publishing and listening on one connection; what transport and store share."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nats import errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Inner

from cliffracer_core.errors import ConnectionError, MessageTooLarge
from cliffracer_core.messages import Message, validate_headers
from cliffracer_core.subjects import validate_subject

from .connection import Connection
from .headers import encoded_size
from .replies import Replies

__all__ = ["Listening", "Wire"]

_log = logging.getLogger("cliffracer.nats")
_MAX_CHECKED = 1024


class Listening:
    """One subscription at the server."""

    def __init__(self, connection: Connection, inner: Inner) -> None:
        self._connection = connection
        self._inner = inner

    async def drain(self) -> None:
        """Unsubscribe; when this returns, all that had arrived has been handed over, and no more will be."""
        client = self._connection.live()
        if self._inner._closed:
            return
        try:
            # UNSUB, PING and PONG, then waits until its queue is empty
            await self._inner.drain()  # type: ignore[no-untyped-call]  # nats-py has none here
        except (errors.Error, OSError) as error:
            label = self._connection.label
            _log.warning("%s: %r unsubscribed without the server's word (%s)", label, self._inner.subject, error)
            client.forget(self._inner)


class Wire:
    """Send and receive over one connection, with checks on every path.

    Args:
        connection: where to.
        check_subject: raises InvalidSubject for a subject not to be published on.
    """

    def __init__(self, connection: Connection, *, check_subject: Callable[[str], object] = validate_subject) -> None:
        self.connection = connection
        self._validate = check_subject
        self.replies = Replies(self)
        self._checked: set[str] = set()  # subjects that passed; they repeat

    async def open(self) -> None:
        """Connect. Raises as `Connection.open` does."""
        await self.connection.open()
        await self.replies.open()

    def check(self, message: Message) -> None:
        """Refuse what must not be sent.

        Raises:
            InvalidSubject, InvalidHeader, MessageTooLarge: with the reason.
            ConnectionError: closed.
        """
        if message.subject not in self._checked:
            self._check_subject(message.subject)
        if message.reply_to is not None and message.reply_to not in self._checked:
            validate_subject(message.reply_to)
        size = len(message.body)
        if message.headers:
            validate_headers(message.headers)
            size += encoded_size(message.headers)
        limit = self.connection.live().max_payload
        if size > limit:
            raise MessageTooLarge(
                f"message on {message.subject!r} has {size} bytes with its headers, the server takes {limit}; "
                "send less, or raise max_payload there"
            )

    async def publish(self, message: Message) -> None:
        """Check a message and put it into the connection's buffer.

        Raises:
            InvalidSubject, InvalidHeader, MessageTooLarge: nothing was sent.
            ConnectionError: closed, or disconnected with a full buffer.
        """
        self.check(message)
        headers = dict(message.headers) if message.headers else None
        try:
            await self.connection.live().publish(message.subject, message.body, message.reply_to or "", headers)
        except errors.OutboundBufferLimitError:
            raise ConnectionError(
                f"{self.connection.label}: disconnected, and {self.connection.settings.buffer_bytes} bytes wait "
                "already; publish less, or raise nats.buffer_bytes"
            ) from None
        except (errors.ConnectionClosedError, errors.ConnectionDrainingError) as error:
            raise ConnectionError(f"{self.connection.label}: the connection is closed; open it first") from error

    def _check_subject(self, subject: str) -> None:
        self._validate(subject)
        if not subject.startswith("_INBOX."):  # those never repeat
            if len(self._checked) >= _MAX_CHECKED:
                self._checked.clear()
            self._checked.add(subject)

    async def request(self, message: Message, timeout_s: float) -> Message:
        """Send and return the first reply. Raises as `Replies.request` does."""
        return await self.replies.request(message, timeout_s)

    async def listen(self, pattern: str, on_msg: Callable[[Msg], None], queue: str = "") -> Listening:
        """Subscribe with a plain callback, called in order, in nats-py's one task for this subscription."""

        async def receive(msg: Msg) -> None:
            try:
                on_msg(msg)
            except Exception:
                _log.exception("%s: the callback for %r failed", self.connection.label, pattern)

        limit = self.connection.settings.pending_bytes
        try:
            inner = await self.connection.live().subscribe(
                pattern, queue, cb=receive, pending_msgs_limit=0, pending_bytes_limit=limit
            )
        except (errors.Error, OSError) as error:
            raise ConnectionError(f"{self.connection.label}: cannot listen on {pattern!r} ({error})") from error
        return Listening(self.connection, inner)

    async def close(self) -> None:
        """Write what is buffered, fail the requests that still wait, disconnect."""
        await self.connection.close()
        self.replies.close(ConnectionError(f"{self.connection.label}: closed while a request waited for its reply"))
