"""`JetStreamDelivery`: one delivery of a stored message. Source: NATS documentation, "JetStream wire API"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cliffracer_core.messages import Message

from .streams import MESSAGE_ID

if TYPE_CHECKING:
    from .wire import Wire

__all__ = ["JetStreamDelivery"]


class JetStreamDelivery:
    """See `cliffracer_core.messages.Delivery`.

    Args:
        wire: what to answer on.
        message: as it was published, but for the headers that publishing added.
        ack_to: the reply subject, as it stood on the wire:
            `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<...>.<time>.<pending>`, or the newer form with
            domain and account hash before the stream, and a token at the end (ADR-15).
        headers: all of them.
        expires_at: point on the loop's clock from which the broker delivers it again.
        ack_wait_s: seconds that `in_progress` adds.
        ended: hears of the end, once.

    Raises:
        ValueError: `ack_to` is no ack subject.
    """

    __slots__ = (
        "_ack_to",
        "_ack_wait_s",
        "_ended",
        "_headers",
        "_sequence",
        "_stream",
        "_wire",
        "attempt",
        "expires_at",
        "message",
    )

    def __init__(
        self,
        wire: Wire,
        message: Message,
        ack_to: bytes,
        headers: Mapping[str, str] | None,
        expires_at: float,
        ack_wait_s: float,
        ended: Callable[[JetStreamDelivery], None],
    ) -> None:
        self._ack_to = ack_to
        tokens = ack_to.split(b".")
        if len(tokens) >= 11:
            del tokens[2:4]
        elif len(tokens) != 9:
            raise ValueError(f"{ack_to!r} is no ack subject")
        self.attempt = int(tokens[4])
        self._sequence = tokens[5]
        self._stream = tokens[2]
        self.message = message
        self.expires_at = expires_at
        self._headers = headers
        self._wire = wire
        self._ack_wait_s = ack_wait_s
        self._ended: Callable[[JetStreamDelivery], None] | None = ended

    @property
    def message_id(self) -> str:
        """The publisher's message id, else one made of the stream and its sequence number."""
        if self._headers is not None and MESSAGE_ID in self._headers:
            return self._headers[MESSAGE_ID]
        return f"{self._stream.decode()}:{self._sequence.decode()}"

    async def ack(self) -> None:
        """Tell JetStream it is done; nothing where the delivery has ended.

        Not confirmed: an ack lost with the connection means one more delivery, which the promise allows.

        Raises:
            ConnectionError: the ack could not be sent; the message comes again.
        """
        ended, self._ended = self._ended, None
        if ended is not None:
            try:
                full = self._wire.put_known(self._ack_to, b"+ACK")
                if full is not None:
                    await full
            finally:
                ended(self)

    async def nak(self, delay_s: float = 0.0) -> None:
        """Give it back, to be delivered again after `delay_s` seconds; nothing where it has ended.

        Raises:
            ConnectionError: it could not be sent; the message comes again after its ack wait.
        """
        ended, self._ended = self._ended, None
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
        if self._ended is not None:
            await self._say(b"+WPI")
            self.expires_at = asyncio.get_running_loop().time() + self._ack_wait_s

    async def _say(self, word: bytes) -> None:
        full = self._wire.put_known(self._ack_to, word)
        if full is not None:
            await full
