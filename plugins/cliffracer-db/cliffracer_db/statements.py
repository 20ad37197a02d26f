"""The statements of one table: composed once with `psycopg.sql`, kept as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from psycopg import sql

from .conditions import Shape, where_clause
from .ddl import constraints_of
from .models import MANAGED, Table

__all__ = ["Statements"]

T = TypeVar("T")
_MOST_KEPT = 1000


class Statements:
    """Compose the statements of a table, each shape once.

    Args:
        table: whose.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self._kept: dict[Any, str] = {}
        name, columns = sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.names))
        self._name, self._columns = name, columns
        self.fields = dict(constraints_of(table))
        """Constraint to field."""
        values = sql.SQL(", ").join(sql.SQL("%s") for _ in table.names)
        insert = sql.SQL("insert into {} ({}) values ({})").format(name, columns, values)
        self.insert = insert.as_string(None)
        self.get = sql.SQL("select {} from {} where id = %s").format(columns, name).as_string(None)
        self.get_many = sql.SQL("select {} from {} where id = any(%s::uuid[])").format(columns, name).as_string(None)
        self.delete = sql.SQL("delete from {} where id = %s").format(name).as_string(None)
        self.copy = sql.SQL("copy {} ({}) from stdin (format binary)").format(name, columns).as_string(None)
        self._insert = insert

    def _keep(self, key: Any, compose: Callable[[], sql.Composable]) -> str:
        text = self._kept.get(key)
        if text is None:
            if len(self._kept) >= _MOST_KEPT:  # programs have few shapes; one that has many made them of input
                self._kept.clear()
            text = self._kept[key] = compose().as_string(None)
        return text

    def update(self, names: Sequence[str], *, expecting: bool) -> str:
        """Set these fields of one row, and a later `updated_at`; with `expecting`, only of an unchanged row."""

        def compose() -> sql.Composable:
            sets: list[sql.Composable] = [sql.SQL("{} = %s").format(sql.Identifier(each)) for each in names]
            # two updates within one tick of the clock differ, too
            sets.append(sql.SQL("updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')"))
            unchanged = sql.SQL(" and updated_at = %s") if expecting else sql.SQL("")
            return sql.SQL("update {} set {} where id = %s{} returning {}").format(
                self._name, sql.SQL(", ").join(sets), unchanged, self._columns
            )

        return self._keep(("update", tuple(names), expecting), compose)

    def upsert(self, on: Sequence[str]) -> str:
        """Insert a row, or change the one that has the same values in the fields `on`."""
        tenant = self.table.tenant
        if tenant is not None and tenant.name not in on and tuple(on) != ("id",):
            on = (tenant.name, *on)  # what is unique is so for one tenant

        def compose() -> sql.Composable:
            sets: list[sql.Composable] = [
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(each))
                for each in self.table.names
                if each not in MANAGED and each not in on and self.table.fields[each] is not tenant
            ]
            sets.append(
                sql.SQL("updated_at = greatest(clock_timestamp(), {}.updated_at + interval '1 microsecond')").format(
                    self._name
                )
            )
            return sql.SQL("{} on conflict ({}) do update set {} returning {}").format(
                self._insert,
                sql.SQL(", ").join(map(sql.Identifier, on)),
                sql.SQL(", ").join(sets),
                self._columns,
            )

        return self._keep(("upsert", tuple(on)), compose)

    def select(
        self, shape: Shape, order: Sequence[tuple[str, bool]], *, limit: bool = False, offset: bool = False
    ) -> str:
        """Read rows; placeholders: the conditions' values, limit, offset."""

        def compose() -> sql.Composable:
            return sql.SQL("select {} from {}{}{}{}{}").format(
                self._columns,
                self._name,
                where_clause(self.table, shape),
                _order(order),
                sql.SQL(" limit %s") if limit else sql.SQL(""),
                sql.SQL(" offset %s") if offset else sql.SQL(""),
            )

        return self._keep(("select", shape, tuple(order), limit, offset), compose)

    def page(self, shape: Shape, field: str, *, descending: bool, after: bool) -> str:
        """Read rows past a place; placeholders: the conditions' values, the place (value and id), limit."""

        def compose() -> sql.Composable:
            condition = where_clause(self.table, shape)
            keys = (field, "id") if field != "id" else ("id",)
            if after:
                place = sql.SQL("({}) {} ({})").format(
                    sql.SQL(", ").join(map(sql.Identifier, keys)),
                    sql.SQL("<" if descending else ">"),
                    sql.SQL(", ").join(sql.SQL("%s") for _ in keys),
                )
                condition = sql.SQL("{}{}{}").format(condition, sql.SQL(" and " if shape else " where "), place)
            return sql.SQL("select {} from {}{}{} limit %s").format(
                self._columns, self._name, condition, _order([(each, descending) for each in keys])
            )

        return self._keep(("page", shape, field, descending, after), compose)

    def count(self, shape: Shape) -> str:
        """Count rows."""
        return self._keep(
            ("count", shape),
            lambda: sql.SQL("select count(*) from {}{}").format(self._name, where_clause(self.table, shape)),
        )

    def exists(self, shape: Shape) -> str:
        """Tell whether there is a row."""
        return self._keep(
            ("exists", shape),
            lambda: sql.SQL("select exists(select 1 from {}{})").format(self._name, where_clause(self.table, shape)),
        )


def _order(order: Sequence[tuple[str, bool]]) -> sql.Composable:
    if not order:
        return sql.SQL("")
    return sql.SQL(" order by ") + sql.SQL(", ").join(
        sql.SQL("{}{}").format(sql.Identifier(name), sql.SQL(" desc" if descending else ""))
        for name, descending in order
    )
