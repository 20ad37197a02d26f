"""`Outbox`: events written with the data they tell of, in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from psycopg import sql
from psycopg.types.json import Jsonb

from cliffracer_core.errors import ConfigurationError, InvalidHeader
from cliffracer_core.interfaces import Middleware, Outgoing, Send
from cliffracer_core.messages import codec_for

from .database import Database
from .ids import new_id

__all__ = ["CHANNEL", "Outbox", "Stored"]

CHANNEL = "cliffracer_outbox"
OUTBOX_ORDER = 90
_TABLE = """
create table if not exists cliffracer_outbox (
    id bigint generated always as identity primary key,
    service text not null,
    message_id text not null,
    subject text not null,
    ordering_key text not null,
    body bytea not null,
    headers jsonb not null,
    transport text not null,
    durable boolean not null,
    stream text,
    written_at timestamptz not null default clock_timestamp(),
    failure text
);
create index if not exists cliffracer_outbox_waiting on cliffracer_outbox (service, id) where failure is null;
"""
# one notification of a transaction, however many events it writes
_WRITE = """
with written as (
    insert into cliffracer_outbox
        (service, message_id, subject, ordering_key, body, headers, transport, durable, stream)
    values (%s, %s, %s, %s, %s, %s, %s, %s, %s) returning service
) select pg_notify('cliffracer_outbox', service) from written
"""
_READ = """
select id, message_id, subject, ordering_key, body, headers, transport, durable, stream from cliffracer_outbox
where service = %s and failure is null and id > %s order by id limit %s
"""


class Stored(msgspec.Struct, frozen=True):
    """An event that waits to be sent."""

    id: int
    message_id: str
    subject: str
    key: str
    body: bytes
    headers: dict[str, str]
    transport: str
    durable: bool
    stream: str | None


class Outbox:
    """The events of one service that wait to be sent.

    Args:
        db: where they are kept.
        service: whose.
    """

    def __init__(self, db: Database, service: str) -> None:
        self.db = db
        self.service = service

    async def prepare(self) -> None:
        """Make the table where it is missing."""
        async with self.db.transaction():
            await self.db.fetch_all("select pg_advisory_xact_lock(hashtext('cliffracer_outbox'))")
            await self.db.execute(sql.SQL(_TABLE))

    def layer(self) -> Middleware:
        """Return the layer that writes what is published with `outbox`."""

        def wrap(send: Send) -> Send:
            async def keep(outgoing: Outgoing) -> object:
                if not outgoing.outbox:
                    return await send(outgoing)
                await self.write(outgoing)
                return None

            return keep

        return Middleware(stage="shape", order=OUTBOX_ORDER, wrap=wrap, name="outbox")

    async def write(self, outgoing: Outgoing) -> None:
        """Write an event down, in the running transaction where there is one.

        Raises:
            EncodingError, InvalidHeader: nothing was written.
            CliffracerError: what the database refused.
        """
        key = outgoing.outbox if isinstance(outgoing.outbox, str) else outgoing.subject
        headers = dict(outgoing.headers)
        for name, value in headers.items():
            if "\x00" in name + value or "\n" in name + value or "\r" in name + value:
                raise InvalidHeader(f"header {name!r} holds a character that would end its line")
        body = codec_for(headers).encode(outgoing.payload)
        message_id = outgoing.message_id or str(new_id())
        await self.db.fetch_all(
            _WRITE,
            (self.service, message_id, outgoing.subject, key, body, Jsonb(headers, dumps=msgspec.json.encode),
             outgoing.transport, outgoing.durable, outgoing.stream),
        )  # fmt: skip

    async def waiting(self, limit: int, *, after: int = 0) -> list[Stored]:
        """Return the oldest events past an id. Errors as `Database.select`."""
        rows = await self.db.fetch_all(_READ, (self.service, after, limit))
        return [
            Stored(id, message_id, subject, key, bytes(body), dict(headers), transport, durable, stream)
            for id, message_id, subject, key, body, headers, transport, durable, stream in rows
        ]

    async def remove(self, sent: Sequence[int]) -> None:
        """Forget events that were sent."""
        await self.db.run("delete from cliffracer_outbox where id = any(%s::bigint[])", (list(sent),))

    async def park(self, failures: Mapping[int, str]) -> None:
        """Keep events that cannot be sent, with the reason, and send them no more."""
        for id, failure in failures.items():
            await self.db.run("update cliffracer_outbox set failure = %s where id = %s", (failure, id))


def refuse_transport(name: str, known: Sequence[str]) -> ConfigurationError:
    """Return the error for an event whose transport this service has no more."""
    return ConfigurationError(f"transport {name!r} is not configured; known are {', '.join(sorted(known))}")
