"""`Wire`: checked publishing and listening on one connection; what transport and store share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from nats import errors
from nats.aio.subscription import Subscription as Inner

from cliffracer_core.errors import ConnectionError, MessageTooLarge
from cliffracer_core.messages import Message
from cliffracer_core.subjects import validate_subject

from .client import MendedClient
from .connection import Connection
from .datapath import Receive
from .headers import encode_headers
from .replies import Replies

__all__ = ["Listening", "Wire"]

_log = logging.getLogger("cliffracer.nats")
_MOST_HEADS = 1024
_MOST_SIZES = 1024
_SIZES = [b" %d\r\n" % size for size in range(_MOST_SIZES)]
"""The end of a command's line, by the size of its body."""
INBOX = "_INBOX."


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
        self.request = self.replies.request
        """Sends and returns the first reply; see `Replies.request`."""
        self._heads: dict[str, bytes] = {}
        """`PUB <subject>` for subjects that passed, since they repeat."""
        self._inboxes: dict[str, bytes] = {}
        """The same for reply subjects, up to their last dot."""
        self._replying_to: str | None = None
        """The reply subject of the request handed over last, which most handlers answer at once."""
        self._reply_subject = b""
        """It as it stood on the wire."""

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
        self._check_size(message, self._frame(message, None))

    def _frame(self, message: Message, inbox: bytes | None) -> bytes:
        """Return a message as it stands on the wire, with subjects and headers checked."""
        subject, body = message.subject, message.body
        if subject is self._replying_to:
            head = b"PUB %b" % self._reply_subject
        else:
            head = self._heads.get(subject) or self._head(subject)
        if inbox is not None:
            head = b"%b %b" % (head, inbox)
        elif message.reply_to is not None:
            head = b"%b %b" % (head, validate_subject(message.reply_to).encode())
        if message.headers:
            block = encode_headers(message.headers)
            return b"H%b %d %d\r\n%b%b\r\n" % (head, len(block), len(block) + len(body), block, body)
        return b"%b %d\r\n%b\r\n" % (head, len(body), body)

    def _check_size(self, message: Message, data: bytes) -> None:
        limit = self.connection.live().max_payload
        if len(data) > limit:
            line = data[: data.index(b"\r\n")]
            size = int(line.rpartition(b" ")[2])
            if size > limit:
                raise MessageTooLarge(
                    f"message on {message.subject!r} has {size} bytes with its headers, the server takes {limit}; "
                    "send less, or raise max_payload there"
                )

    def put(self, message: Message, inbox: bytes | None = None) -> Coroutine[Any, Any, None] | None:
        """Check a message and put it into the connection's buffer; return what to await where that is full.

        Args:
            message: what is to be sent.
            inbox: its reply subject, where that is one of ours.

        Raises:
            InvalidSubject, InvalidHeader, MessageTooLarge: nothing was sent.
            ConnectionError: closed, or disconnected with a full buffer.
        """
        data = self._frame(message, inbox)
        client = self.connection.client or self.connection.live()
        sent = client.send((data, b"", b"", b"", b""), len(data))
        if sent is not None:
            return None if sent else self._drained(client)
        self._check_size(message, data)
        return self._put_elsewhere(message, data)

    def put_known(self, subject: bytes, body: bytes) -> Coroutine[Any, Any, None] | None:
        """Do as `put` with a short message, without headers, on a subject that came from the server."""
        client = self.connection.client or self.connection.live()
        size = len(body)
        sent = client.send((b"PUB ", subject, _SIZES[size], body, b"\r\n"), size)
        if sent is None:
            data = b"PUB %b %d\r\n%b\r\n" % (subject, size, body)
            return self._put_elsewhere(Message(subject.decode("utf-8", "replace"), body), data)
        return None if sent else self._drained(client)

    async def publish(self, message: Message) -> None:
        """Do as `put`, and wait where the buffer is full."""
        client, body = self.connection.client, message.body
        if client is not None and message.headers is None and message.reply_to is None and type(body) is bytes:
            subject, size = message.subject, len(body)  # most events and replies: with few function calls
            length = _SIZES[size] if size < _MOST_SIZES else b" %d\r\n" % size
            if subject is self._replying_to:
                sent = client.send((b"PUB ", self._reply_subject, length, body, b"\r\n"), size)
            else:
                sent = client.send((self._heads.get(subject) or self._head(subject), length, body, b"\r\n"), size)
            if sent is not None:
                if not sent:
                    await self._drained(client)
                return
        full = self.put(message)
        if full is not None:
            await full

    async def _put_elsewhere(self, message: Message, data: bytes) -> None:
        client = self.connection.live()
        path = client.data_path
        if path is None or not client.is_connected:
            await self._publish_through_nats_py(client, message)
            return
        path.writelines(client.take_pending())  # SUB, or what was published while disconnected: keep the order
        if not path.send(data):
            await self._drained(client)

    async def _drained(self, client: MendedClient) -> None:
        try:
            if client.data_path is not None:
                await client.data_path.drain()
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

    def _head(self, subject: str) -> bytes:
        if isinstance(subject, str) and subject.startswith(INBOX):  # none repeats, but most begin alike
            token_at = subject.rfind(".") + 1
            shared, token = subject[:token_at], subject[token_at:]
            head = self._inboxes.get(shared)
            if head is None or not (token.isalnum() and token.isascii()):
                self._validate(subject)
                head = _remember(self._inboxes, shared, f"PUB {shared}".encode())
            return b"%b%b" % (head, token.encode())
        self._validate(subject)
        return _remember(self._heads, subject, f"PUB {subject}".encode())

    async def listen(self, pattern: str, on_message: Callable[[Message], None], queue: str = "") -> Listening:
        """Subscribe with a plain callback, called in order; one that fails is logged."""
        expected = pattern.encode()

        def receive(subject: bytes, reply_to: bytes | None, headers: Mapping[str, str] | None, body: bytes) -> None:
            reply_text = None
            if reply_to is not None:  # a client may send any bytes
                reply_text = self._replying_to = reply_to.decode("utf-8", "replace")
                self._reply_subject = reply_to
            text = pattern if subject == expected else subject.decode("utf-8", "replace")
            try:
                on_message(Message(text, body, headers, reply_text))
            except Exception:
                _log.exception("%s: the callback for %r failed", self.connection.label, pattern)

        return await self.listen_raw(pattern, receive, queue)

    async def listen_raw(self, pattern: str, receive: Receive, queue: str = "") -> Listening:
        """Subscribe with a callback that takes messages as they stand on the wire, and never raises."""
        try:
            inner = await self.connection.live().listen(pattern, queue, receive)
        except (errors.Error, OSError) as error:
            raise ConnectionError(f"{self.connection.label}: cannot listen on {pattern!r} ({error})") from error
        return Listening(self.connection, inner)

    async def close(self) -> None:
        """Write what is buffered, fail the requests that still wait, disconnect."""
        await self.connection.close()
        self.replies.close(ConnectionError(f"{self.connection.label}: closed while a request waited for its reply"))


def _remember(heads: dict[str, bytes], key: str, head: bytes) -> bytes:
    if len(heads) >= _MOST_HEADS:
        heads.clear()
    heads[key] = head
    return head
