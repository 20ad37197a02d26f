"""Layers around handlers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from cliffracer_core.context import MessageContext
from cliffracer_core.errors import ConfigurationError
from cliffracer_core.handlers import Declaration, Mark
from cliffracer_core.interfaces import Call, Middleware

from .database import Database
from .transactions import TransactionOptions

__all__ = ["transaction_layer"]

TRANSACTION_ORDER = 50


def transaction_layer(database: Database, declaration: Declaration, marks: Sequence[Mark]) -> Middleware:
    """Return the layer that runs a handler in a transaction, anew where another got in the way.

    Raises:
        ConfigurationError: it is marked twice, is no handler, or a generator, whose transaction would span its reader.
    """
    options = marks[0].options if marks else TransactionOptions()
    if len(marks) > 1 or not isinstance(options, TransactionOptions):
        raise ConfigurationError(f"handler {declaration.where!r} is marked @transactional twice; leave one")
    if marks and all(each.owner == marks[0].owner for each in declaration.marks):
        raise ConfigurationError(
            f"method {declaration.where!r} is marked @transactional and is no handler, so nothing would open its "
            f"transaction; use 'async with db.transaction()' inside"
        )
    if inspect.isasyncgenfunction(declaration.function):
        raise ConfigurationError(
            f"handler {declaration.where!r} streams its reply, so @transactional would keep a transaction open as "
            f"long as its reader takes; use 'async with db.transaction()' inside"
        )

    def wrap(call: Call) -> Call:
        async def in_transaction(context: MessageContext) -> object:
            async def run() -> object:
                return await call(context)

            return await database.retrying(
                run, isolation=options.isolation, read_only=options.read_only, attempts=options.attempts
            )

        return in_transaction

    return Middleware(stage="shape", order=TRANSACTION_ORDER, wrap=wrap, name="transaction")
