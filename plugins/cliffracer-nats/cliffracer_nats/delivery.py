"""`JetStreamDelivery`: one delivery of a stored message. Source: NATS documentation, "JetStream wire API"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cliffracer_core.interfaces import DurableSubscription
from cliffracer_core.messages import Message

from .streams import MESSAGE_ID, published_headers

if TYPE_CHECKING:
    from .wire import Wire

__all__ = ["AckSubject", "JetStreamDelivery", "parse_ack_subject"]


class AckSubject(msgspec.Struct, frozen=True):
    """What the reply subject of a delivery says."""

    stream: str
    consumer: str
    attempt: int
    stream_sequence: int
    consumer_sequence: int
    stored_at: float
    """Seconds since the epoch."""
    pending: int


def parse_ack_subject(subject: str) -> AckSubject:
    """Read `$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<time>.<pending>`.

    The newer form has domain and account hash before the stream and a token at the end (ADR-15).

    Raises:
        ValueError: it is neither.
    """
    tokens = subject.split(".")
    if tokens[:2] != ["$JS", "ACK"] or (len(tokens) != 9 and len(tokens) < 11):
        raise ValueError(f"{subject!r} is no ack subject")
    rest = tokens[2:9] if len(tokens) == 9 else tokens[4:11]
    return AckSubject(rest[0], rest[1], int(rest[2]), int(rest[3]), int(rest[4]), int(rest[5]) / 1e9, int(rest[6]))


class JetStreamDelivery:
    """See `cliffracer_core.messages.Delivery`."""

    __slots__ = ("_ack_to", "_ack_wait_s", "_ended", "_wire", "attempt", "expires_at", "message", "message_id")

    def __init__(
        self,
        wire: Wire,
        msg: Message,
        wanted: DurableSubscription,
        ended: Callable[[JetStreamDelivery], None],
    ) -> None:
        self._ack_to = msg.reply_to or ""
        where = parse_ack_subject(self._ack_to)
        headers = msg.headers or {}
        self.message = Message(msg.subject, msg.body, published_headers(headers))
        self.attempt = where.attempt
        self.message_id = headers.get(MESSAGE_ID) or f"{where.stream}:{where.stream_sequence}"
        self.expires_at = asyncio.get_running_loop().time() + wanted.ack_wait_s
        """Point on the loop's clock from which the broker delivers it again."""
        self._wire = wire
        self._ack_wait_s = wanted.ack_wait_s
        self._ended: Callable[[JetStreamDelivery], None] | None = ended

    async def ack(self) -> None:
        """Tell JetStream it is done; nothing where the delivery has ended.

        Not confirmed: an ack lost with the connection means one more delivery, which the promise allows.

        Raises:
            ConnectionError: the ack could not be sent; the message comes again.
        """
        await self._end(b"+ACK")

    async def nak(self, delay_s: float = 0.0) -> None:
        """Give it back, to be delivered again after `delay_s` seconds; nothing where it has ended.

        Raises:
            ConnectionError: it could not be sent; the message comes again after its ack wait.
        """
        await self._end(b'-NAK {"delay": %d}' % (delay_s * 1e9) if delay_s > 0 else b"-NAK")

    async def in_progress(self) -> None:
        """Restart the ack wait; nothing where it has ended.

        Raises:
            ConnectionError: it could not be sent.
        """
        if self._ended is not None:
            await self._wire.publish(Message(self._ack_to, b"+WPI"))
            self.expires_at = asyncio.get_running_loop().time() + self._ack_wait_s

    async def _end(self, word: bytes) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            try:
                await self._wire.publish(Message(self._ack_to, word))
            finally:
                ended(self)
