"""Statements written by hand: what they may be composed of."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeAlias

from psycopg import sql

from .errors import InvalidValue
from .transactions import TransactionOptions

if TYPE_CHECKING:
    from psycopg.abc import QueryNoTemplate

if sys.version_info >= (3, 14):  # where the language has them
    from string.templatelib import Template

    Statement: TypeAlias = sql.Composable | Template
    """Composed with `psycopg.sql`, or a template; a plain `str` is refused."""

    _FORMATS = frozenset({"", "s", "t", "b", "i", "l", "q"})

    def _check(template: Template) -> None:
        """Refuse what the driver would, before there is a connection; without the value."""
        for each in template.interpolations:
            if each.conversion or each.format_spec not in _FORMATS:
                raise InvalidValue(
                    f"template: {{{each.expression}}} has a conversion or a format that SQL does not know; write "
                    f"{{name}} for a value, {{name:i}} for an identifier, {{name:q}} for a part that is a template"
                )
            if isinstance(each.value, Template):
                _check(each.value)

else:
    Statement: TypeAlias = sql.Composable
    """Composed with `psycopg.sql`; a plain `str` is refused."""

__all__ = ["Statement", "executable", "set_transaction"]


def executable(statement: object, parameters: object = None) -> QueryNoTemplate:
    """Return what the driver runs.

    Raises:
        InvalidValue: a str or another type, which may hold a value; a template beside parameters, or one with a
            conversion or a format that the driver does not know.
    """
    if isinstance(statement, sql.Composable):
        return statement.as_string(None)
    if sys.version_info >= (3, 14) and isinstance(statement, Template):
        if parameters is not None:
            raise InvalidValue("a template holds its values; give no parameters beside it")
        _check(statement)
        return statement  # type: ignore[return-value]  # the driver takes it where it takes the others
    raise InvalidValue(
        "a statement is composed with psycopg.sql, never formatted; write sql.SQL('... where id = %s') "
        "and give the values as parameters"
    )


def set_transaction(options: TransactionOptions) -> sql.Composed:
    """Return the statement that gives a transaction its isolation level and mode."""
    parts: list[sql.Composable] = []
    if options.isolation is not None:
        parts.append(sql.SQL("isolation level ") + sql.SQL(options.isolation))
    if options.read_only:
        parts.append(sql.SQL("read only"))
    return sql.SQL("set transaction ") + sql.SQL(", ").join(parts)
