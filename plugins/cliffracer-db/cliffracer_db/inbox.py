"""`Inbox`: calls and events that took effect, remembered in the handler's own transaction."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import logging
from collections.abc import AsyncIterator
from typing import Any, get_type_hints

import msgspec
from psycopg import sql

from cliffracer_core.context import MessageContext
from cliffracer_core.errors import CliffracerError, ConfigurationError, describe
from cliffracer_core.handlers import Declaration
from cliffracer_core.interfaces import Call, Middleware
from cliffracer_core.messages import IDEMPOTENCY_KEY, JSON

from .database import Database
from .errors import IdempotencyConflict, InvalidValue, SerializationFailure
from .tenants import current_tenant

__all__ = ["Inbox"]

logger = logging.getLogger("cliffracer.db")

INBOX_ORDER = 60  # inside the transaction
MAX_KEY_CHARACTERS = 255
PRUNE_EVERY_S = 600.0
_TABLE = """
create table if not exists cliffracer_inbox (
    handler text not null,
    caller text not null,
    key text not null,
    hash bytea not null,
    result bytea,
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (handler, caller, key)
);
create index if not exists cliffracer_inbox_recorded on cliffracer_inbox (recorded_at);
"""
# a concurrent call under the same key waits here until the first has ended, either way
_RECORD = """
insert into cliffracer_inbox (handler, caller, key, hash) values (%s, %s, %s, %s) on conflict do nothing returning 1
"""
_READ = "select hash, result from cliffracer_inbox where handler = %s and caller = %s and key = %s"
_RESULT = "update cliffracer_inbox set result = %s where handler = %s and caller = %s and key = %s"
_PRUNE = """
delete from cliffracer_inbox where ctid in (
    select ctid from cliffracer_inbox where recorded_at < clock_timestamp() - make_interval(secs => %s) limit 5000
)
"""


class Inbox:
    """What the idempotent handlers of a service have done.

    Args:
        db: where it is kept.
    """

    def __init__(self, db: Database) -> None:
        self.db = db

    @contextlib.asynccontextmanager
    async def kept(self, keep_s: float) -> AsyncIterator[None]:
        """Make the table where it is missing, and remove what is older than `keep_s` for the length of a block."""
        async with self.db.transaction():
            await self.db.fetch_all("select pg_advisory_xact_lock(hashtext('cliffracer_inbox'))")
            await self.db.execute(sql.SQL(_TABLE))
        pruning = asyncio.create_task(self._prune_often(keep_s))
        try:
            yield
        finally:
            pruning.cancel()
            await asyncio.wait({pruning})

    async def prune(self, keep_s: float) -> int:
        """Remove what is older than `keep_s` seconds; returns how much."""
        removed = 0
        while count := await self.db.run(_PRUNE, (keep_s,)):
            removed += count
        return removed

    async def _prune_often(self, keep_s: float) -> None:
        while True:
            try:
                await self.prune(keep_s)
            except CliffracerError as error:
                logger.warning("old records of the inbox are not removed: %s", describe(error))
            await asyncio.sleep(PRUNE_EVERY_S)

    def layer(self, declaration: Declaration) -> Middleware:
        """Return the layer that lets a repeated call of a handler run once; it runs in a transaction.

        What it returns is kept as JSON; what has no such form undoes the call with an EncodingError.

        Raises:
            ConfigurationError: the handler streams its reply.
        """
        if inspect.isasyncgenfunction(declaration.function):
            raise ConfigurationError(
                f"handler {declaration.where!r} streams its reply, which cannot be kept; take idempotent=True away"
            )

        reply = _reply_type(declaration)

        def wrap(call: Call) -> Call:
            async def once(context: MessageContext) -> object:
                key = context.message_id or context.headers.get(IDEMPOTENCY_KEY)
                if key is None:
                    return await call(context)
                return await self._once(call, context, declaration.where, key, reply)

            return once

        return Middleware(stage="shape", order=INBOX_ORDER, wrap=wrap, name="inbox")

    async def _once(
        self, call: Call, context: MessageContext, handler: str, key: str, reply: type[msgspec.Struct] | None
    ) -> object:
        if not key or len(key) > MAX_KEY_CHARACTERS or not key.isprintable():
            raise InvalidValue(f"an idempotency key is 1 to {MAX_KEY_CHARACTERS} printable characters")
        caller = context.identity.id if context.identity is not None else ""
        tenant = current_tenant()
        if tenant is not None:  # another tenant's user may have the same name
            caller = msgspec.json.encode([caller, tenant]).decode()
        place = (handler, caller, key)
        body = context.body or msgspec.json.encode(context.arguments, order="sorted", enc_hook=str)
        digest = hashlib.sha256(body).digest()
        if await self.db.fetch_all(_RECORD, (*place, digest)):
            result = await call(context)
            if isinstance(result, msgspec.Struct) and _has_status(type(result)) and type(result) is not reply:
                raise ConfigurationError(
                    f"handler {handler!r} is idempotent and returns a {type(result).__name__}; write that as its "
                    f"return annotation, so that a repeated call gets it, too"
                )
            # nobody reads what an event's handler returns
            kept = JSON.encode(None if context.kind == "event" else result)
            await self.db.run(_RESULT, (kept, *place))
            return result
        rows = await self.db.fetch_all(_READ, place)
        if not rows or rows[0][1] is None:  # removed meanwhile, or of a transaction that this one cannot see
            raise SerializationFailure("an earlier call under this idempotency key got in the way; call again")
        if bytes(rows[0][0]) != digest and context.kind != "event":
            raise IdempotencyConflict("this idempotency key was used for a call with other arguments; take a new one")
        return msgspec.json.decode(rows[0][1], type=Any if reply is None else reply)


def _has_status(kind: type[msgspec.Struct]) -> bool:
    """Tell whether it is an answer with a status of its own, as `Reply` of `cliffracer-http`."""
    return {"value", "status_code"} <= set(kind.__struct_fields__)


def _reply_type(declaration: Declaration) -> type[msgspec.Struct] | None:
    try:
        hint = get_type_hints(declaration.function).get("return")
    except NameError:
        return None
    return hint if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and _has_status(hint) else None
