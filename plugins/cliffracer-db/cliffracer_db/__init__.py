"""PostgreSQL for Cliffracer: models, repositories, transactions."""

from .columns import Column
from .conditions import any_of, where
from .database import Database
from .embedded import EmbeddedPostgres, embedded_postgres
from .errors import (
    CheckViolation,
    DatabaseUnavailable,
    ForeignKeyViolation,
    InvalidValue,
    NotNullViolation,
    PoolExhausted,
    RecordNotFound,
    SerializationFailure,
    StaleRecord,
    StatementTimeout,
    SuspiciousInput,
    UniqueViolation,
    UnknownField,
    UnknownTable,
    ValueTooLarge,
)
from .models import DatabaseModel
from .paging import Page
from .repository import Repository
from .settings import DbSettings
from .transactions import transactional

__all__ = [
    "CheckViolation",
    "Column",
    "Database",
    "DatabaseModel",
    "DatabaseUnavailable",
    "DbSettings",
    "EmbeddedPostgres",
    "ForeignKeyViolation",
    "InvalidValue",
    "NotNullViolation",
    "Page",
    "PoolExhausted",
    "RecordNotFound",
    "Repository",
    "SerializationFailure",
    "StaleRecord",
    "StatementTimeout",
    "SuspiciousInput",
    "UniqueViolation",
    "UnknownField",
    "UnknownTable",
    "ValueTooLarge",
    "any_of",
    "embedded_postgres",
    "transactional",
    "where",
]
