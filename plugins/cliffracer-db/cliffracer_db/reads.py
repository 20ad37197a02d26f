"""`Reads`: rows by their ids; reads that come while others are under way share the next statement.

A statement costs client and server far more than one more row of it does. A read that finds fewer than `UNDER_WAY`
others goes at once and by itself; past that, reads wait for one to end and go together. No read is answered by a
statement that was sent before it began, so each sees what was committed by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from contextvars import Context
from typing import Any
from uuid import UUID

from cliffracer_core.errors import CliffracerError

from .database import Database
from .pool import Connection, Pool
from .transactions import current_transaction
from .translation import DRIVER_ERRORS, translate

__all__ = ["Reads"]

UNDER_WAY = 2
MOST = 500
"""Ids of one statement."""
Row = tuple[Any, ...]
Found = tuple[Row | None] | None
"""What there is; None where the statement failed."""
Waiting = list[tuple[UUID, "asyncio.Future[Found]"]]


class Reads:
    """Read rows of one table by their ids.

    Args:
        db: where the table is.
        one: the statement that reads a row by its id.
        many: the one that reads several by an array of ids; their first column is the id.
    """

    def __init__(self, db: Database, one: str, many: str) -> None:
        self._db = db
        self._one = one
        self._many = many
        self._pool: Pool | None = None
        self._under_way = 0
        self._waiting: Waiting = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, id: UUID) -> Row | None:
        """Return a row, or None where there is none; in a transaction, as the transaction sees it.

        Raises:
            CliffracerError: what the database refused.
        """
        pool = self._db.pool
        if pool is not self._pool:
            self._begin_anew(pool)
        if current_transaction(pool) is not None:
            rows = await self._db.fetch_all(self._one, (id,))
            return rows[0] if rows else None
        if self._under_way >= UNDER_WAY:
            place: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
            self._waiting.append((id, place))
            found = await place
            if found is not None:
                return found[0]
        connection = await pool.take()
        if pool is self._pool:
            self._under_way += 1  # only now: nobody waits for a read that itself waits for a connection
        rows = await self._read(pool, connection, self._one, id)
        return rows[0] if rows else None

    async def _read(self, pool: Pool, connection: Connection, text: str, parameter: object) -> list[Row]:
        """Run a statement that is counted as under way, and give the connection back."""
        try:
            try:
                cursor = connection.cursor(binary=True)
                await cursor.execute(text, (parameter,), prepare=True)
                return await cursor.fetchall()
            except DRIVER_ERRORS as error:
                raise translate(error) from error
            finally:
                await pool.give_back(connection)
        finally:
            self._ended(pool)

    def _begin_anew(self, pool: Pool) -> None:
        """Forget a pool that was closed, perhaps with its event loop; who waits there reads by itself."""
        waiting, self._waiting = self._waiting, []
        self._pool, self._under_way = pool, 0
        for _, place in waiting:
            if not place.done() and not place.get_loop().is_closed():
                place.set_result(None)

    def _ended(self, pool: Pool) -> None:
        """Send what waits, now that one fewer is under way."""
        if pool is not self._pool:
            return
        self._under_way -= 1
        if self._waiting and self._under_way < UNDER_WAY:
            together, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            self._under_way += 1
            # in nobody's context, for it belongs to several: no transaction, no identity
            task = asyncio.get_running_loop().create_task(self._read_many(pool, together), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _read_many(self, pool: Pool, together: Waiting) -> None:
        """Read rows for several; where the statement fails each reads by itself. Errors are each one's own."""
        rows: dict[UUID, Row] | None = None
        ids = list({id for id, place in together if not place.done()})
        try:
            try:
                connection = await pool.take()
            except CliffracerError as error:
                self._ended(pool)
                for _, place in together:
                    if not place.done():
                        place.set_exception(type(error)(str(error)))
                return
            with contextlib.suppress(CliffracerError):
                rows = {row[0]: row for row in await self._read(pool, connection, self._many, ids)}
        finally:
            for id, place in together:
                if not place.done():
                    place.set_result(None if rows is None else (_own(rows.get(id)),))


def _own(row: Row | None) -> Row | None:
    """Copy what a model may hold on to and change: two that read one row share nothing."""
    if row is None or not any(isinstance(value, dict | list) for value in row):
        return row
    return copy.deepcopy(row)
