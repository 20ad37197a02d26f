"""From the driver's errors to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

import psycopg
from psycopg import errors as pg
from psycopg.transaction import OutOfOrderTransactionNesting
from psycopg_pool import PoolTimeout, TooManyRequests

from cliffracer_core.errors import CliffracerError, DatabaseError

from .errors import (
    CheckViolation,
    DatabaseUnavailable,
    ForeignKeyViolation,
    InvalidValue,
    NotNullViolation,
    PoolExhausted,
    SerializationFailure,
    StatementTimeout,
    UniqueViolation,
    UnknownTable,
    WrongTenant,
    details_of,
)

__all__ = ["DRIVER_ERRORS", "FAILED", "translate"]

DRIVER_ERRORS = (psycopg.Error, UnicodeError)
"""What the driver raises for a statement; a text that is no Unicode fails in Python."""

FAILED = (
    "a statement of the transaction has failed, so all of it is undone; put what may fail inside "
    "'async with db.transaction()' of its own, and catch the error around that"
)
_KEY = re.compile(r"^Key \(([a-z0-9_, ]+)\)=")
_GONE = (pg.AdminShutdown, pg.CrashShutdown, pg.CannotConnectNow, pg.ConnectionException, pg.TooManyConnections)
_RETRY = (pg.SerializationFailure, pg.DeadlockDetected)
_TIMEOUT = (pg.QueryCanceled, pg.LockNotAvailable, pg.IdleInTransactionSessionTimeout, pg.TransactionTimeout)
_POLICY = "ExecWithCheckOptions"
"""PostgreSQL's function that applies a policy to a new row; the message itself depends on the server's language."""
_MISSING = (pg.UndefinedTable, pg.UndefinedColumn, pg.InvalidSchemaName, pg.UndefinedFunction)


def translate(error: Exception, fields: Mapping[str, str] | None = None) -> CliffracerError:
    """Return our error for one of the driver's; nothing of the statement or its values is in the message.

    Args:
        error: one of `DRIVER_ERRORS`.
        fields: constraint to field, where the table's model is known.
    """
    if isinstance(error, TooManyRequests | PoolTimeout):
        return PoolExhausted("every connection to the database is in use; retry later, or raise 'db.pool_max_size'")
    if isinstance(error, UnicodeError):
        return InvalidValue("text cannot be encoded as UTF-8")
    if not isinstance(error, psycopg.Error):
        raise error
    diagnosis = error.diag
    constraint, table = diagnosis.constraint_name, diagnosis.table_name
    key = _KEY.match(diagnosis.message_detail or "")
    field = (fields or {}).get(constraint or "") or diagnosis.column_name or (key[1] if key else None)
    details = details_of(table=table, field=field, constraint=constraint)
    where = f"table {table!r}: " if table else ""
    what = f"field {field!r}" if field else "a value"
    if isinstance(error, pg.UniqueViolation):
        return UniqueViolation(f"{where}a row with this {field or 'value'!r} exists already", details=details)
    if isinstance(error, pg.ForeignKeyViolation):
        return ForeignKeyViolation(
            f"{where}{what} refers to a row that is not there, or is still used", details=details
        )
    if isinstance(error, pg.NotNullViolation):
        return NotNullViolation(f"{where}{what} is required", details=details)
    if isinstance(error, pg.CheckViolation | pg.ExclusionViolation):
        return CheckViolation(f"{where}{what} breaks the rule {constraint!r}", details=details)
    if isinstance(error, _RETRY):
        return SerializationFailure("another transaction got in the way; run the transaction again")
    if isinstance(error, pg.InsufficientPrivilege) and diagnosis.source_function == _POLICY:
        return WrongTenant("a row belongs to another tenant, or the statement to none; nothing was written")
    if fields is not None and isinstance(error, pg.InvalidColumnReference):  # of an upsert
        return DatabaseError("no unique constraint is on these fields; give one of them unique=True")
    if isinstance(error, pg.InvalidRegularExpression):
        return DatabaseError("a pattern is none that PostgreSQL reads; write it without what only Python knows")
    if isinstance(error, pg.InFailedSqlTransaction):
        return DatabaseError(FAILED)
    if isinstance(error, pg.ReadOnlySqlTransaction):
        return DatabaseError("the transaction is read only")
    if isinstance(error, _TIMEOUT):
        return StatementTimeout("the statement, or its wait for a lock, took too long and was ended")
    if isinstance(error, _MISSING):
        return UnknownTable("a table or column is not in the database; apply the migrations: 'cliffracer db migrate'")
    if isinstance(error, _GONE) or (isinstance(error, psycopg.OperationalError) and error.sqlstate is None):
        return DatabaseUnavailable("the connection to the database was lost, or cannot be made")
    if isinstance(error, OutOfOrderTransactionNesting):
        return DatabaseError(
            "two tasks of one transaction each began another inside it, or wrote many rows, at once; "
            "let one do so after the other"
        )
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:  # of the driver, before anything is sent
        return DatabaseError("a statement and its parameters do not fit; look at their number, names and types")
    if isinstance(error, psycopg.DataError):
        return InvalidValue(f"{where}{what} does not fit its column", details=details)
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return DatabaseError(f"the database refused the statement{state}")
