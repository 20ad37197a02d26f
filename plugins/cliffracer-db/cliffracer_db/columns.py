"""`Column`: one field of a model as the database sees it, read from the field's annotation."""

from __future__ import annotations

import enum
import hashlib
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec
from psycopg import sql
from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int8

from cliffracer_core.errors import ConfigurationError

from .errors import InvalidValue, ValueTooLarge

__all__ = ["Column", "Field", "constraint_name", "make_field", "validate_identifier"]

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
_REFERENCE = re.compile(r"([a-z_][a-z0-9_]*)\.([a-z_][a-z0-9_]*)\Z")
_SCALARS: Mapping[type, str] = {
    bool: "boolean", int: "bigint", float: "double precision", str: "text", Decimal: "numeric",
    datetime: "timestamptz", date: "date", UUID: "uuid", bytes: "bytea",
}  # fmt: skip
_BIGINT = 2**63
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Dump = Callable[[Any], Any]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """What an annotation says of a column beyond its type: `Annotated[str, Column(unique=True)]`."""

    unique: bool = False
    index: bool = False
    references: str | None = None
    """`table.column` that the value must be found in."""
    on_delete: Literal["no action", "restrict", "cascade", "set null"] = "no action"
    check: str | None = None
    """An SQL condition that every row meets, such as `total >= 0`."""
    default: str | None = None
    """An SQL expression for rows that are inserted by other means than a repository, such as `now()`."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a table."""

    name: str
    type: Any
    """The annotation, constraints included, as msgspec checks it."""
    base: Any
    """The type alone, that a value to compare with must have."""
    sql_type: str
    nullable: bool
    options: Column
    checks: tuple[tuple[str, sql.Composable], ...] = ()
    """Constraint's name and condition."""
    default: sql.Composable | None = None
    dump: Dump
    """Turn a checked value into the statement's parameter."""


def validate_identifier(name: str, what: str) -> str:
    """Return a table's or column's name, if it is one that never needs quoting.

    Raises:
        ConfigurationError: it has other characters than a-z, 0-9 and `_`, or more than 63.
    """
    if not _IDENTIFIER.match(name):
        raise ConfigurationError(f"{what} {name!r} is no name for SQL; use a-z, 0-9 and '_', at most 63 characters")
    return name


def constraint_name(*parts: str) -> str:
    """Join a constraint's name, as PostgreSQL does; what is past 63 characters becomes a hash."""
    name = "_".join(parts)
    return name if len(name) <= 63 else f"{name[:54]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def make_field(table: str, name: str, annotation: Any, default: object, max_value_bytes: int) -> Field:
    """Read a field.

    Args:
        table: for the constraints' names.
        name: the field's.
        annotation: its type, with `Meta` and `Column` in `Annotated`.
        default: of the Struct; `msgspec.NODEFAULT` where there is none that is a plain value.
        max_value_bytes: the size of a text, bytes or JSON value from which it is refused.

    Raises:
        ConfigurationError: the type has no column type.
    """
    validate_identifier(name, f"field of table {table!r}:")
    extras, inner, nullable = _unwrap(annotation)
    where = f"field {name!r} of table {table!r}"
    options = next((each for each in extras if isinstance(each, Column)), Column())
    if options.references is not None and not _REFERENCE.match(options.references):
        raise ConfigurationError(f"{where}: references {options.references!r} is not of the form 'table.column'")
    metas = [each for each in extras if isinstance(each, msgspec.Meta)]
    sql_type, values = _sql_type(inner, where)
    column = sql.Identifier(name)
    checks = [(kind, check) for meta in metas for kind, check in _meta_checks(column, inner, sql_type, meta)]
    if values is not None:
        checks.append(("values", sql.SQL("{} in ({})").format(column, sql.SQL(", ").join(map(sql.Literal, values)))))
    if options.check is not None:
        checks.append(("check", sql.SQL(options.check)))
    ddl_default: sql.Composable | None = None
    if options.default is not None:
        ddl_default = sql.SQL(options.default)
    elif isinstance(default, bool | int | float | str | Decimal | enum.Enum) and sql_type != "jsonb":
        plain = default.value if isinstance(default, enum.Enum) else default
        ddl_default = sql.Literal(plain) if not isinstance(plain, float) or math.isfinite(plain) else None
    return Field(
        name=name, type=annotation, base=inner, sql_type=sql_type, nullable=nullable, options=options,
        checks=tuple((constraint_name(table, name, kind), check) for kind, check in checks),
        default=ddl_default, dump=_dumper(name, inner, sql_type, annotation, max_value_bytes),
    )  # fmt: skip


def _unwrap(annotation: Any) -> tuple[list[Any], Any, bool]:
    """Take `Annotated` and `None` off a type; returns what was annotated, the type, whether None is allowed."""
    extras: list[Any] = []
    nullable = False
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            extras += more
        elif origin in (Union, types.UnionType) and type(None) in get_args(annotation):
            rest = [each for each in get_args(annotation) if each is not type(None)]
            if len(rest) != 1:
                return extras, annotation, True
            nullable, annotation = True, rest[0]
        else:
            return extras, annotation, nullable


def _sql_type(inner: Any, where: str) -> tuple[str, list[object] | None]:
    """Return the column's type and, of an enum or a Literal, the values there are."""
    if inner in _SCALARS:
        return _SCALARS[inner], None
    values: list[object] | None = None
    if isinstance(inner, type) and issubclass(inner, enum.Enum):
        values = [each.value for each in inner]
    elif get_origin(inner) is Literal:
        values = list(get_args(inner))
    if values is not None:
        kinds = {type(each) for each in values}
        if kinds not in ({str}, {int}):
            raise ConfigurationError(f"{where}: its values are not all text, or all integers; a column needs one type")
        return _SCALARS[kinds.pop()], values
    origin = get_origin(inner) or inner
    if origin in (list, dict, tuple, set, frozenset) or (
        isinstance(origin, type) and issubclass(origin, msgspec.Struct)
    ):
        return "jsonb", None
    raise ConfigurationError(
        f"{where}: type {inner!r} has no column type; use str, int, float, bool, Decimal, datetime, date, UUID, bytes, "
        f"an Enum, Literal, list, dict or a Struct"
    )


def _meta_checks(
    column: sql.Identifier, inner: Any, sql_type: str, meta: msgspec.Meta
) -> Iterator[tuple[str, sql.Composable]]:
    length = {"text": "char_length({})", "bytea": "octet_length({})", "jsonb": "jsonb_array_length({})"}.get(sql_type)
    if issubclass(get_origin(inner) or inner, dict):  # a CHECK may hold no subquery, as counting the keys would be
        length = "jsonb_array_length(jsonb_path_query_array({}, '$.keyvalue()'))"
    for kind, limit, operator in (("min_length", meta.min_length, ">="), ("max_length", meta.max_length, "<=")):
        if limit is not None and length is not None:
            size = sql.SQL(length).format(column)
            yield kind, sql.SQL("{} {} {}").format(size, sql.SQL(operator), sql.Literal(limit))
    for kind, bound, operator in (
        ("ge", meta.ge, ">="),
        ("gt", meta.gt, ">"),
        ("le", meta.le, "<="),
        ("lt", meta.lt, "<"),
    ):
        if bound is not None:
            yield kind, sql.SQL("{} {} {}").format(column, sql.SQL(operator), sql.Literal(bound))
    if meta.multiple_of is not None and sql_type != "double precision":  # of floats the remainder is seldom exact
        yield "multiple_of", sql.SQL("{} % {} = 0").format(column, sql.Literal(meta.multiple_of))
    if meta.pattern is not None:
        yield "pattern", sql.SQL("{} ~ {}").format(column, sql.Literal(meta.pattern))


def _dumper(name: str, inner: Any, sql_type: str, annotation: Any, max_value_bytes: int) -> Dump:
    """Return what turns a value into a parameter, None aside, and refuses what no constraint names."""

    def too_large(size: int) -> ValueTooLarge:
        return ValueTooLarge(
            f"field {name!r}: {size} bytes are more than the {max_value_bytes} allowed; "
            f"store less, or set __max_value_bytes__ on the model",
            details={"field": name},
        )

    def invalid(reason: str) -> InvalidValue:
        return InvalidValue(f"field {name!r}: {reason}", details={"field": name})

    def text(value: str) -> str:
        if len(value) * 4 > max_value_bytes and (size := len(value.encode("utf-8", "replace"))) > max_value_bytes:
            raise too_large(size)
        if "\x00" in value:
            raise invalid("text must not hold the character NUL")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise invalid("text holds half of a surrogate pair, which no encoding knows") from None
        return value

    def binary(value: bytes) -> bytes:
        if len(value) > max_value_bytes:
            raise too_large(len(value))
        return value

    def integer(value: int) -> int:
        if not -_BIGINT <= value < _BIGINT:
            raise invalid("integer is out of range; a bigint has 64 bits")
        return Int8(value)  # one type whatever the value, so that a statement is prepared once

    def moment(value: datetime) -> datetime:
        if value.tzinfo is None:
            raise invalid("time has no zone; use datetime.now(timezone.utc) or the like")
        if value.year in (MINYEAR, MAXYEAR):
            try:
                value.astimezone(UTC)
            except OverflowError:
                raise invalid("time is outside of the years 1 to 9999 in UTC") from None
        return value

    decoder = msgspec.json.Decoder(annotation) if sql_type == "jsonb" else None

    def document(value: object) -> Jsonb:
        try:
            encoded = msgspec.json.encode(value)
            assert decoder is not None
            decoder.decode(encoded)
        except msgspec.ValidationError as error:
            raise invalid(str(error)) from None
        except (TypeError, UnicodeEncodeError):
            raise invalid("value has no encoding as JSON") from None
        if len(encoded) > max_value_bytes:
            raise too_large(len(encoded))
        if _ESCAPED_NUL.search(encoded):
            raise invalid("text must not hold the character NUL")
        return Jsonb(encoded, dumps=bytes)

    if isinstance(inner, type) and issubclass(inner, enum.Enum):
        return (lambda value: Int8(value.value)) if sql_type == "bigint" else (lambda value: value.value)
    dumps: Mapping[str, Dump] = {
        "text": text, "bytea": binary, "bigint": integer, "timestamptz": moment, "jsonb": document,
    }  # fmt: skip
    return dumps.get(sql_type, _same)


def _same(value: Any) -> Any:
    return value
