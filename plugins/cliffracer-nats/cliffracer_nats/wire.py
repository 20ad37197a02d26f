"""`Wire`: checked publishing and listening on one connection; what transport and store share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from nats import errors
from nats.aio.subscription import Subscription as Inner

from cliffracer_core.errors import ConnectionError, MessageTooLarge
from cliffracer_core.messages import Message, validate_headers
from cliffracer_core.subjects import validate_subject

from .client import MendedClient
from .connection import Connection
from .datapath import DataPath
from .headers import encode_headers
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
            client.unheard(self._inner)
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

    def check(self, message: Message) -> bytes:
        """Refuse what must not be sent, and return its header block as it stands on the wire.

        Raises:
            InvalidSubject, InvalidHeader, MessageTooLarge: with the reason.
            ConnectionError: closed.
        """
        if message.subject not in self._checked:
            self._check_subject(message.subject)
        reply_to = message.reply_to
        if reply_to is not None and reply_to not in self.replies.waiting:
            validate_subject(reply_to)
        block = b""
        if message.headers:
            block = encode_headers(validate_headers(message.headers))
        size, limit = len(block) + len(message.body), self.connection.live().max_payload
        if size > limit:
            raise MessageTooLarge(
                f"message on {message.subject!r} has {size} bytes with its headers, the server takes {limit}; "
                "send less, or raise max_payload there"
            )
        return block

    async def publish(self, message: Message) -> None:
        """Check a message and put it into the connection's buffer; waits where the socket takes no more.

        Raises:
            InvalidSubject, InvalidHeader, MessageTooLarge: nothing was sent.
            ConnectionError: closed, or disconnected with a full buffer.
        """
        client = self.connection.live()
        block, body = self.check(message), message.body
        path = client.data_path
        if path is None or not client.is_connected:
            await self._publish_through_nats_py(client, message)
            return
        if client.has_pending:  # SUB, or what was published while disconnected: keep the order
            path.writelines(client.take_pending())
        target = f"{message.subject} {message.reply_to}" if message.reply_to else message.subject
        if block:
            size = len(block) + len(body)
            written = path.send(f"HPUB {target} {len(block)} {size}\r\n".encode(), block, body, b"\r\n")
        else:
            written = path.send(f"PUB {target} {len(body)}\r\n".encode(), body, b"\r\n")
        if not written:
            await self._drained(path)

    async def _drained(self, path: DataPath) -> None:
        try:
            await path.drain()
        except OSError:  # lost: what it held is lost with it, as with any core message; nats-py reconnects
            return

    async def _publish_through_nats_py(self, client: MendedClient, message: Message) -> None:
        try:
            headers = dict(message.headers) if message.headers else None
            await client.publish(message.subject, message.body, message.reply_to or "", headers)
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

    def request(self, message: Message, timeout_s: float) -> Coroutine[Any, Any, Message]:
        """Send and return the first reply. Raises as `Replies.request` does."""
        return self.replies.request(message, timeout_s)

    async def listen(self, pattern: str, on_message: Callable[[Message], None], queue: str = "") -> Listening:
        """Subscribe with a plain callback, called in order; one that fails is logged."""

        def receive(message: Message) -> None:
            try:
                on_message(message)
            except Exception:
                _log.exception("%s: the callback for %r failed", self.connection.label, pattern)

        try:
            inner = await self.connection.live().listen(pattern, queue, receive)
        except (errors.Error, OSError) as error:
            raise ConnectionError(f"{self.connection.label}: cannot listen on {pattern!r} ({error})") from error
        return Listening(self.connection, inner)

    async def close(self) -> None:
        """Write what is buffered, fail the requests that still wait, disconnect."""
        await self.connection.close()
        self.replies.close(ConnectionError(f"{self.connection.label}: closed while a request waited for its reply"))
