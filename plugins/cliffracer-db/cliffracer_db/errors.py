"""What a database may refuse, as typed errors, and the translation of the driver's.

Messages name table, field and constraint; never a statement or a value.
"""

from __future__ import annotations

from collections.abc import Mapping

from cliffracer_core.errors import (
    AuthorizationError,
    ConflictError,
    ConnectionError,
    DatabaseError,
    NotFoundError,
    Overloaded,
    ValidationError,
)

__all__ = [
    "CheckViolation",
    "DatabaseUnavailable",
    "ForeignKeyViolation",
    "IdempotencyConflict",
    "InvalidValue",
    "NotNullViolation",
    "PoolExhausted",
    "RecordNotFound",
    "SerializationFailure",
    "StaleRecord",
    "StatementTimeout",
    "SuspiciousInput",
    "TenantRequired",
    "UniqueViolation",
    "UnknownField",
    "UnknownTable",
    "ValueTooLarge",
    "WrongTenant",
]


class RecordNotFound(DatabaseError, NotFoundError, code="record_not_found", status=404):
    """No row has this id."""


class UniqueViolation(DatabaseError, ConflictError, code="unique_violation", status=409):
    """A row with this value exists already; `details` has `field`, `constraint` and `table`."""


class ForeignKeyViolation(DatabaseError, ConflictError, code="foreign_key_violation", status=409):
    """A row refers to one that is not there, or is still referred to."""


class StaleRecord(DatabaseError, ConflictError, code="stale_record", status=409):
    """The row has changed since `expected_updated_at`; read it again."""


class InvalidValue(DatabaseError, ValidationError, code="invalid_value", status=400):
    """A value does not fit its field; `details["field"]` names it where one is known."""


class UnknownField(InvalidValue, code="unknown_field"):
    """The model has no such field."""


class ValueTooLarge(InvalidValue, code="value_too_large", status=413):
    """A value is larger than the model allows."""


class SuspiciousInput(InvalidValue, code="suspicious_input"):
    """A `SecureRepository` refused a value that looks like an attack."""


class IdempotencyConflict(InvalidValue, code="idempotency_conflict", status=422):
    """An idempotency key was used before, for a call with other arguments."""


class CheckViolation(InvalidValue, code="check_violation"):
    """A CHECK of the table refused a value."""


class NotNullViolation(InvalidValue, code="not_null_violation"):
    """A required value is missing."""


class TenantRequired(DatabaseError, AuthorizationError, code="tenant_required", status=403):
    """The rows belong to tenants, and the call is nobody's."""


class WrongTenant(DatabaseError, AuthorizationError, code="wrong_tenant", status=403):
    """A row, or a transaction, belongs to another tenant."""


class UnknownTable(DatabaseError, code="unknown_table", status=500):
    """The table, or a column of it, is not in the database; a migration was not applied."""


class SerializationFailure(DatabaseError, ConflictError, code="serialization_failure", status=409, retryable=True):
    """Another transaction got in the way; run the whole transaction again."""


class StatementTimeout(DatabaseError, code="statement_timeout", status=504, retryable=True):
    """A statement, or the wait for a lock, took longer than allowed and was ended."""


class PoolExhausted(DatabaseError, Overloaded, code="pool_exhausted", status=503, retryable=True):
    """Every connection was in use for `pool_timeout_s` seconds."""


class DatabaseUnavailable(DatabaseError, ConnectionError, code="database_unavailable", status=503, retryable=True):
    """The database cannot be reached, or the connection was lost.

    Of a write it may then be unknown whether it was done.
    """


def details_of(**facts: str | None) -> Mapping[str, object]:
    """Keep those facts that are known."""
    return {name: fact for name, fact in facts.items() if fact}
