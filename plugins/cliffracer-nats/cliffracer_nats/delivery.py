"""`JetStreamDelivery`: one delivery of a stored message. Source: NATS documentation, "JetStream wire API"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from cliffracer_core.messages import Message

from .wire import Wire

__all__ = ["JetStreamDelivery", "read_ack_subject"]


def read_ack_subject(ack_to: bytes) -> tuple[int, str]:
    """Return how often a message was delivered, and `<stream>:<sequence>`, from its reply subject.

    That is `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<...>.<time>.<pending>`, or the newer form with
    domain and account hash before the stream, and a token at the end (ADR-15).

    Raises:
        ValueError: it is no ack subject.
    """
    tokens = ack_to.decode("utf-8", "replace").split(".")
    if len(tokens) >= 11:
        del tokens[2:4]
    elif len(tokens) != 9:
        raise ValueError(f"{ack_to!r} is no ack subject")
    return int(tokens[4]), f"{tokens[2]}:{tokens[5]}"


class JetStreamDelivery(msgspec.Struct, eq=False):
    """See `cliffracer_core.messages.Delivery`."""

    wire: Wire
    """What to answer on."""
    message: Message
    """As it was published, but for the headers that publishing added."""
    ack_to: bytes
    """The reply subject, as it stood on the wire."""
    attempt: int
    message_id: str
    """The publisher's message id, else one made of the stream and its sequence number."""
    expires_at: float
    """Point on the loop's clock from which the broker delivers it again."""
    ack_wait_s: float
    """Seconds that `in_progress` adds."""
    ended: Callable[[JetStreamDelivery], None] | None
    """Hears of the end, once; None from there on."""

    async def ack(self) -> None:
        """Tell JetStream it is done; nothing where the delivery has ended.

        Not confirmed: an ack lost with the connection means one more delivery, which the promise allows.

        Raises:
            ConnectionError: the ack could not be sent; the message comes again.
        """
        ended, self.ended = self.ended, None
        if ended is not None:
            try:
                full = self.wire.put_known(self.ack_to, b"+ACK")
                if full is not None:
                    await full
            finally:
                ended(self)

    async def nak(self, delay_s: float = 0.0) -> None:
        """Give it back, to be delivered again after `delay_s` seconds; nothing where it has ended.

        Raises:
            ConnectionError: it could not be sent; the message comes again after its ack wait.
        """
        ended, self.ended = self.ended, None
        if ended is not None:
            try:
                await self._say(b'-NAK {"delay": %d}' % (delay_s * 1e9) if delay_s > 0 else b"-NAK")
            finally:
                ended(self)

    async def in_progress(self) -> None:
        """Restart the ack wait; nothing where it has ended.

        Raises:
            ConnectionError: it could not be sent.
        """
        if self.ended is not None:
            await self._say(b"+WPI")
            self.expires_at = asyncio.get_running_loop().time() + self.ack_wait_s

    async def _say(self, word: bytes) -> None:
        full = self.wire.put_known(self.ack_to, word)
        if full is not None:
            await full
