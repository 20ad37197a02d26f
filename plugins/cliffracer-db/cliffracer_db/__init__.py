"""PostgreSQL for Cliffracer: models, repositories, transactions, migrations, a durable store."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .columns import Column
    from .conditions import any_of, where
    from .database import Database
    from .embedded import EmbeddedPostgres, embedded_postgres
    from .errors import (
        CheckViolation,
        DatabaseUnavailable,
        ForeignKeyViolation,
        IdempotencyConflict,
        InvalidValue,
        NotNullViolation,
        PoolExhausted,
        RecordNotFound,
        SerializationFailure,
        StaleRecord,
        StatementTimeout,
        SuspiciousInput,
        TenantRequired,
        UniqueViolation,
        UnknownField,
        UnknownTable,
        ValueTooLarge,
        WrongTenant,
    )
    from .models import DatabaseModel
    from .paging import Page
    from .repository import Repository
    from .secure import SecureRepository
    from .settings import DbSettings
    from .store import PostgresStore
    from .tenants import as_tenant, current_tenant, tenant_field
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
    "IdempotencyConflict",
    "InvalidValue",
    "NotNullViolation",
    "Page",
    "PoolExhausted",
    "PostgresStore",
    "RecordNotFound",
    "Repository",
    "SecureRepository",
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
    "any_of",
    "as_tenant",
    "current_tenant",
    "embedded_postgres",
    "tenant_field",
    "transactional",
    "where",
]

_FROM = {
    "CheckViolation": "errors",
    "Column": "columns",
    "Database": "database",
    "DatabaseModel": "models",
    "DatabaseUnavailable": "errors",
    "DbSettings": "settings",
    "EmbeddedPostgres": "embedded",
    "ForeignKeyViolation": "errors",
    "IdempotencyConflict": "errors",
    "InvalidValue": "errors",
    "NotNullViolation": "errors",
    "Page": "paging",
    "PoolExhausted": "errors",
    "PostgresStore": "store",
    "RecordNotFound": "errors",
    "Repository": "repository",
    "SecureRepository": "secure",
    "SerializationFailure": "errors",
    "StaleRecord": "errors",
    "StatementTimeout": "errors",
    "SuspiciousInput": "errors",
    "TenantRequired": "errors",
    "UniqueViolation": "errors",
    "UnknownField": "errors",
    "UnknownTable": "errors",
    "ValueTooLarge": "errors",
    "WrongTenant": "errors",
    "any_of": "conditions",
    "as_tenant": "tenants",
    "current_tenant": "tenants",
    "embedded_postgres": "embedded",
    "tenant_field": "tenants",
    "transactional": "transactions",
    "where": "conditions",
}


def __getattr__(
    name: str,
) -> object:  # PEP 562: the plugin is loaded in every process, the driver only where it is used
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_FROM[name]}", __name__), name)
