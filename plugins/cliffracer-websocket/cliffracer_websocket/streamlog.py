"""`StreamLog`: a history that all replicas share, in a durable stream of the transport.

The stream's sequence numbers are the offsets; its first record names the epoch. Each replica reads the
whole stream in order, from the start, and so holds the same history. Plain delivery of the same message
says that there is something to read; reading alone decides what is delivered.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from cliffracer_core.errors import CliffracerError, ConfigurationError
from cliffracer_core.interfaces import DurableTransport, Subscription
from cliffracer_core.messages import Message, StoredMessage

from .envelopes import Epoch, Stored, pack, unpack
from .history import History
from .publication import Publication

__all__ = ["StreamLog"]

logger = logging.getLogger("cliffracer.websocket")

_POLL_S = 1.0
"""How often the stream is looked at where nothing says that there is something new."""
_SOON_S = 0.005
_GIVE_UP_S = 5.0
"""What was announced and does not turn up for so long was never stored, or the stream was made anew."""


class StreamLog:
    """Publications in a durable stream.

    Args:
        history: what is kept here.
        transport: an open one that stores.
        stream: its name.
        subject: what it takes.
        id: this replica.
        deliver: hears each new publication, in order.
        lost: hears that publications may have been lost unseen; subscribers are to begin again.
        leads: whether this replica deletes what is no longer kept.
        timeout_s: what storing a message may take.
    """

    def __init__(
        self, history: History, transport: DurableTransport, stream: str, subject: str, id: str, *,
        deliver: Callable[[Publication], None], lost: Callable[[], None], leads: Callable[[], bool],
        timeout_s: float = 5.0,
    ) -> None:  # fmt: skip
        self.history = history
        self.epoch = ""
        self._transport = transport
        self._stream = stream
        self._subject = subject
        self._id = id
        self._deliver = deliver
        self._lost = lost
        self._leads = leads
        self._timeout_s = timeout_s
        self._read = 0
        self._live = False
        self._announced: dict[str, float] = {}
        self._trim: list[int] = []
        self._wake = asyncio.Event()
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read what there is, and go on reading.

        Raises:
            ConfigurationError: the stream cannot be used.
            ConnectionError: it cannot be reached.
        """
        self._subscription = await self._transport.subscribe(self._subject, self._heard)
        await self._catch_up()
        if not self.epoch:
            await self._begin(f"epoch-{self._subject}")
        self._live = True
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if self._subscription is not None:
            await self._subscription.drain()
            self._subscription = None

    async def append(self, group: str, data: bytes, key: str | None) -> None:
        """Store a message; it is delivered everywhere once it is read back.

        Raises:
            NotStored: the stream did not confirm it; it may or may not have been stored.
            MessageTooLarge: nothing was stored.
        """
        record = Stored(self._id, uuid.uuid4().hex, group, data, key)
        await self._store(record, record.id)
        self._announce(record.id)

    async def _store(self, record: Stored | Epoch, id: str) -> None:
        message = Message(self._subject, pack(record))
        await self._transport.publish_durable(message, stream=self._stream, message_id=id, timeout_s=self._timeout_s)

    async def _begin(self, id: str) -> None:
        """Name the epoch; of replicas that do so at once the first one counts."""
        await self._store(Epoch(self._id, uuid.uuid4().hex), id)
        await self._catch_up()
        if not self.epoch:
            raise ConfigurationError(
                f"stream {self._stream!r} took its first record on {self._subject!r} and does not give it back; "
                f"delete the stream, or choose websocket.history='memory'"
            )

    def _heard(self, message: Message) -> None:
        record = unpack(message.body)
        if isinstance(record, Stored):
            self._announce(record.id)

    def _announce(self, id: str) -> None:
        self._announced.setdefault(id, time.monotonic())
        self._wake.set()

    async def _run(self) -> None:
        pause = _POLL_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            try:
                seen = self._read
                await self._catch_up()
                if self._overdue() and self._read == seen:
                    await self._check_epoch()
                await self._tidy()
            except CliffracerError as error:
                logger.debug("history in stream %r cannot be read just now: %s", self._stream, error)
                pause = min(pause * 2, _POLL_S)
            else:
                pause = _SOON_S if self._announced else _POLL_S

    async def _catch_up(self) -> None:
        async for stored in self._transport.browse(self._stream, after=self._read):
            self._take(stored)

    def _take(self, stored: StoredMessage) -> None:
        if stored.sequence > self._read + 1 and self.epoch:  # others deleted what this replica has not read
            if self._live:
                self.history.lose(stored.sequence - 1)
                self._lost()
            else:  # what is read from here on is whole: a group is trimmed from its old end
                self.history.floor = stored.sequence - 1
        self._read = self.history.last = stored.sequence
        if stored.message.subject != self._subject:
            return
        record = unpack(stored.message.body)
        if isinstance(record, Epoch):
            self.epoch = self.epoch or record.id
        elif isinstance(record, Stored):
            self._announced.pop(record.id, None)
            publication = Publication(record.group, record.data, stored.sequence, record.key, stored.stored_at)
            self._trim += self.history.append(publication)
            if self._live:
                self._deliver(publication)

    def _overdue(self) -> bool:
        """Tell whether something announced did not turn up, and give it up where that is long ago."""
        now = time.monotonic()
        late = [id for id, since in self._announced.items() if since < now - _POLL_S]
        for id in late:
            if self._announced[id] < now - _GIVE_UP_S:
                del self._announced[id]
        return bool(late)

    async def _check_epoch(self) -> None:
        """Begin again where the stream was made anew."""
        anything = False
        async for stored in self._transport.browse(self._stream):
            anything = True
            record = unpack(stored.message.body)
            if isinstance(record, Epoch):
                if record.id == self.epoch:
                    return
                break
        if not anything:
            return
        logger.warning("stream %r was made anew: its history begins again", self._stream)
        self.epoch, self._read = "", 0
        self.history.clear()
        self._lost()
        await self._catch_up()
        if not self.epoch:
            await self._begin(uuid.uuid4().hex)

    async def _tidy(self) -> None:
        expired = self.history.expire(time.time())
        if not self._leads():
            self._trim.clear()
            return
        self._trim += expired
        while self._trim:
            await self._transport.delete(self._stream, self._trim[-1])
            self._trim.pop()
