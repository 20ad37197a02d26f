"""Typed conditions: `where("age") >= 18`, and their translation into SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import msgspec
from psycopg import sql

from .errors import InvalidValue
from .models import Table

__all__ = ["AnyOf", "Condition", "Where", "any_of", "order_of", "where"]

Operator = Literal["=", "<>", "<", "<=", ">", ">=", "in", "like", "ilike", "is null", "is not null", "@>"]
_OPERATORS = frozenset(get_args(Operator))


class Condition(msgspec.Struct, frozen=True, eq=False):
    """A comparison of one field; made by `where`, or from a name and a value."""

    field: str
    operator: Operator
    value: Any = None


class AnyOf(msgspec.Struct, frozen=True, eq=False):
    """Conditions of which one must hold; made by `any_of`."""

    conditions: tuple[Condition, ...]


class Where:
    """A field to compare; made by `where`."""

    __slots__ = ("_field",)
    __hash__ = None  # type: ignore[assignment]  # a comparison is a condition, no truth value

    def __init__(self, field: str) -> None:
        self._field = field

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]  # the same
        if value is None:
            return Condition(self._field, "is null")
        return Condition(self._field, "=", value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]  # the same
        if value is None:
            return Condition(self._field, "is not null")
        return Condition(self._field, "<>", value)

    def __lt__(self, value: object) -> Condition:
        return Condition(self._field, "<", value)

    def __le__(self, value: object) -> Condition:
        return Condition(self._field, "<=", value)

    def __gt__(self, value: object) -> Condition:
        return Condition(self._field, ">", value)

    def __ge__(self, value: object) -> Condition:
        return Condition(self._field, ">=", value)

    def in_(self, values: Iterable[object]) -> Condition:
        """Equal to one of these."""
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise InvalidValue(f"field {self._field!r}: in_ takes a list of values", details={"field": self._field})
        return Condition(self._field, "in", list(values))

    def like(self, pattern: str) -> Condition:
        """Match an SQL pattern: `%` for any text, `_` for one character; only a text field."""
        return Condition(self._field, "like", pattern)

    def ilike(self, pattern: str) -> Condition:
        """Match as `like` does, upper and lower case alike."""
        return Condition(self._field, "ilike", pattern)

    def contains(self, value: object) -> Condition:
        """Hold this as a part (`@>`); only a field that is a list, a dict or a Struct."""
        return Condition(self._field, "@>", value)


def where(field: str) -> Where:
    """Name a field to compare: `where("age") >= 18`, `where("email") == None`, `where("id").in_(ids)`."""
    return Where(field)


def any_of(*conditions: Condition) -> AnyOf:
    """Hold where one of the conditions does.

    Raises:
        InvalidValue: there are none.
    """
    if not conditions:
        raise InvalidValue("any_of needs at least one condition")
    return AnyOf(conditions)


Shape = tuple[Any, ...]


class Filter(msgspec.Struct):
    """Conditions checked against a table: their shape, which a statement is cached by, and their values."""

    shape: Shape
    values: list[Any]


def check(table: Table, conditions: Sequence[Condition | AnyOf], equal: dict[str, object]) -> Filter:
    """Check conditions, and fields that are to equal values.

    Raises:
        UnknownField: the table has no such field.
        InvalidValue: a value of the wrong type, or an operator that the field does not have.
    """
    values: list[Any] = []
    shape = [_shape(table, each, values) for each in (*conditions, *(Where(name) == equal[name] for name in equal))]
    return Filter(tuple(shape), values)


def _shape(table: Table, condition: object, values: list[Any]) -> Shape:
    if isinstance(condition, AnyOf):
        return ("or", *(_shape(table, each, values) for each in condition.conditions))
    if not isinstance(condition, Condition):
        raise InvalidValue(f"{type(condition).__name__} is no condition; write where('field') == value")
    field = table.field(condition.field)
    operator = condition.operator
    if operator not in _OPERATORS:
        raise InvalidValue(f"field {field.name!r}: there is no such operator; use where('{field.name}')")
    if operator in ("like", "ilike"):
        if field.sql_type != "text" or not isinstance(condition.value, str):
            raise InvalidValue(f"field {field.name!r}: only text can be like a text", details={"field": field.name})
        values.append(_text(condition.value, field.name))
    elif operator == "in":
        values.append([table.comparand(field, each) for each in condition.value])
    elif operator == "@>":
        if field.sql_type != "jsonb":
            raise InvalidValue(f"field {field.name!r} is no list, dict or Struct", details={"field": field.name})
        values.append(table.document(field, condition.value))
    elif operator not in ("is null", "is not null"):
        values.append(table.comparand(field, condition.value))
    return (operator, field.name)


def order_of(table: Table, order_by: str | Sequence[str]) -> list[tuple[str, bool]]:
    """Return fields to order by, and whether each descends.

    Raises:
        UnknownField: the table has no such field.
        InvalidValue: none is named.
    """
    if not isinstance(order_by, str | Sequence):
        raise InvalidValue("order_by is no field's name, and no list of names", details={"field": "order_by"})
    names = [order_by] if isinstance(order_by, str) else list(order_by)
    order = [(table.field(str(each).removeprefix("-")).name, str(each).startswith("-")) for each in names]
    if not order:
        raise InvalidValue("order_by names no field", details={"field": "order_by"})
    return order


def _text(value: str, field: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidValue(f"field {field!r}: text cannot be encoded", details={"field": field}) from None
    if "\x00" in value:
        raise InvalidValue(f"field {field!r}: text must not hold the character NUL", details={"field": field})
    return value


def where_clause(table: Table, shape: Sequence[Shape]) -> sql.Composable:
    """Return ` where ...` with placeholders in the order of the values; nothing for no conditions."""
    if not shape:
        return sql.SQL("")
    return sql.SQL(" where ") + sql.SQL(" and ").join(_compose(table, each) for each in shape)


def _compose(table: Table, shape: Shape) -> sql.Composable:
    if shape[0] == "or":
        return sql.SQL("({})").format(sql.SQL(" or ").join(_compose(table, each) for each in shape[1:]))
    operator, name = shape
    column = sql.Identifier(name)
    if operator in ("is null", "is not null"):
        return sql.SQL("{} {}").format(column, sql.SQL(operator))
    if operator == "in":
        return sql.SQL("{} = any(%s::{}[])").format(column, sql.SQL(table.fields[name].sql_type))
    return sql.SQL("{} {} %s").format(column, sql.SQL(operator))
