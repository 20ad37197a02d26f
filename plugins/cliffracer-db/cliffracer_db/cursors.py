"""Reading the rows of a statement in portions, from a server-side cursor."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from psycopg import sql
from psycopg.pq import TransactionStatus

from cliffracer_core.errors import DatabaseError

from .pool import Connection
from .transactions import Transaction

__all__ = ["portions"]

_numbers = itertools.count(1)


async def portions(
    connection: Connection, text: str, parameters: Sequence[Any], size: int, transaction: Transaction | None
) -> AsyncGenerator[list[tuple[Any, ...]], None]:
    """Yield the rows of a statement, `size` at a time; the connection is in a transaction.

    Args:
        connection: to read on.
        text: of the statement.
        parameters: its values.
        size: rows of a portion.
        transaction: whose connection it is, where it goes on after the last row; it may end, or be undone, before.

    Raises:
        DatabaseError: the transaction has ended before the last row.
        psycopg.Error: what the database refused.
    """
    name = sql.Identifier(f"cliffracer_{next(_numbers)}").as_string(None)
    undone = 0 if transaction is None else transaction.undone
    cursor = connection.cursor(binary=True)
    await cursor.execute(f"declare {name} no scroll cursor for {text}", parameters, prepare=False)
    try:
        while True:
            if transaction is not None and not transaction.active:
                raise DatabaseError("the transaction that the stream began in has ended; read its rows inside")
            await cursor.execute(f"fetch forward {size} from {name}", prepare=False)
            rows = await cursor.fetchall()
            if not rows:
                return
            yield rows
    finally:
        # elsewhere it ended with its transaction, and closing it again would break what the connection does now
        usable = connection.pgconn.transaction_status == TransactionStatus.INTRANS
        if usable and transaction is not None and transaction.active and transaction.undone == undone:
            await cursor.execute(f"close {name}", prepare=False)
