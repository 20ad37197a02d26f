"""`Relay`: sends what is in the outbox, one relay of a service at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence

import psycopg
from psycopg import sql

from cliffracer_core.errors import CliffracerError, NotStored, describe
from cliffracer_core.interfaces import DurableTransport, Lease, Transport
from cliffracer_core.messages import Message
from cliffracer_core.subjects import stream_name

from .outbox import CHANNEL, Outbox, Stored, refuse_transport
from .settings import DbSettings
from .store import PostgresStore

__all__ = ["Relay"]

logger = logging.getLogger("cliffracer.db")

BATCH = 500
_CONFIRM_S = 5.0
_PAUSE_S = 0.5


class Relay:
    """Send a service's outbox, oldest first, in order of each key.

    Of all replicas one holds the lease and sends. An event is removed after the broker has it; a crash
    in between sends it again under the same message id, which JetStream stores once.

    Args:
        outbox: what to send.
        transports: by name.
        settings: of the database.
        holder: who this replica is.
    """

    def __init__(
        self, outbox: Outbox, transports: Mapping[str, Transport], settings: DbSettings, *, holder: str
    ) -> None:
        self._outbox = outbox
        self._transports = transports
        # asked once: `isinstance` of a Protocol takes as long as sending an event
        self._durable = {name: each for name, each in transports.items() if isinstance(each, DurableTransport)}
        self._settings = settings
        self._holder = holder
        self._store = PostgresStore(settings)
        self._wake = asyncio.Event()
        self._stopping = False
        self._until = 0.0

    def stop(self) -> None:
        """Let `run` end once the events it is sending are sent and removed: cut between the two, they come twice."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Send until stopped or cancelled; what goes wrong is logged and tried again."""
        # behind pgbouncer a session is others' in turn, and hears of what they listen to
        listening = None if self._settings.pgbouncer else asyncio.create_task(self._listen())
        reported = False
        try:
            await self._open_store()
            while not self._stopping:
                try:
                    await self._turn()
                    reported = False
                except CliffracerError as error:
                    if not reported:
                        logger.error("outbox of %r cannot be sent: %s", self._outbox.service, describe(error))
                    reported = True
                    await asyncio.sleep(_PAUSE_S)
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.wait({listening})
            with contextlib.suppress(CliffracerError):
                await self._let_go()
            await self._store.close()

    async def _open_store(self) -> None:
        while True:
            try:
                return await self._store.open()
            except CliffracerError as error:
                logger.error("outbox of %r: %s", self._outbox.service, describe(error))
                await asyncio.sleep(_PAUSE_S)

    async def _turn(self) -> None:
        """Hold the lease and send until there is nothing; then wait for more, or for the lease."""
        self._wake.clear()
        if await self._hold() is not None:
            while await self._send_batch():
                if self._stopping or await self._hold() is None:  # away for too long, another took over
                    return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.outbox_poll_s):
                await self._wake.wait()

    async def _hold(self) -> Lease | None:
        key = f"outbox/{self._outbox.service}"
        self._until = asyncio.get_running_loop().time() + self._settings.outbox_lease_s / 2
        return await self._store.acquire(key, self._holder, ttl_s=self._settings.outbox_lease_s)

    async def _let_go(self) -> None:
        """Give the lease back, for another to take at once; also one whose granting was cut by a cancellation."""
        lease = await self._hold()
        if lease is not None:
            await self._store.release(lease)

    async def _send_batch(self) -> bool:
        """Send the oldest events; tells whether there may be more."""
        events = await self._outbox.waiting(BATCH)
        if not events:
            return False
        by_key: dict[str, list[Stored]] = {}
        for event in events:
            by_key.setdefault(event.key, []).append(event)
        sent: list[int] = []
        parked: dict[int, str] = {}
        results = await asyncio.gather(*(self._send_in_order(each, sent, parked) for each in by_key.values()))
        await self._flush(events)
        if sent:
            await self._outbox.remove(sent)
        if parked:
            await self._outbox.park(parked)
        failure = next((each for each in results if each is not None), None)
        if failure is not None:
            raise failure
        return True

    async def _send_in_order(
        self, events: Sequence[Stored], sent: list[int], parked: dict[int, str]
    ) -> CliffracerError | None:
        """Send events of one key; the first that may succeed later holds back those after it.

        Half a lease's time ends a portion: what is left follows when the lease has been renewed.
        """
        clock = asyncio.get_running_loop().time
        for number, event in enumerate(events):
            if number and clock() > self._until:
                return None
            try:
                await self._send(event)
                sent.append(event.id)
            except CliffracerError as error:
                if error.retryable:
                    return error
                logger.error(
                    "outbox: event %s on %r cannot be sent: %s", event.message_id, event.subject, describe(error)
                )
                parked[event.id] = describe(error)
        return None

    async def _send(self, event: Stored) -> None:
        transport = self._transports.get(event.transport)
        if transport is None:
            raise refuse_transport(event.transport, list(self._transports))
        message = Message(event.subject, event.body, event.headers or None)
        if not event.durable:
            await transport.publish(message)
            return
        storing = self._durable.get(event.transport)
        if storing is None or not storing.capabilities.durable:
            raise NotStored(f"transport {event.transport!r} stores nothing; publish without durable=True")
        await storing.publish_durable(
            message, stream=event.stream or stream_name(event.subject), message_id=event.message_id,
            timeout_s=_CONFIRM_S,
        )  # fmt: skip

    async def _flush(self, events: Sequence[Stored]) -> None:
        """Wait until the broker has what needs no confirmation, before it is forgotten here."""
        for name in {event.transport for event in events if not event.durable}:
            if name in self._transports:
                await self._transports[name].flush()

    async def _listen(self) -> None:
        """Wake the relay when a transaction that wrote events is committed; polling is the net below."""
        while True:
            with contextlib.suppress(psycopg.Error):
                connection = await psycopg.AsyncConnection.connect(self._settings.conninfo(), autocommit=True)
                async with connection:
                    await connection.execute(sql.SQL("listen {}").format(sql.Identifier(CHANNEL)))
                    self._wake.set()
                    async for notification in connection.notifies():
                        if notification.payload == self._outbox.service:
                            self._wake.set()
            await asyncio.sleep(_PAUSE_S)
