"""`DatabaseModel`: a msgspec Struct that is one row of a table; `Table`: what is known of it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, get_type_hints
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from cliffracer_core.errors import ConfigurationError

from .columns import Field, make_field, validate_identifier
from .errors import InvalidValue, TenantRequired, UnknownField
from .ids import new_id

__all__ = ["MANAGED", "DatabaseModel", "Table", "table_of", "utc_now"]

MAX_VALUE_BYTES = 16 * 1024 * 1024
_LAST = ("created_at", "updated_at")
MANAGED = frozenset({"id", *_LAST})
"""Fields that a repository sets."""


def utc_now() -> datetime:
    """Return the present time with its zone."""
    return datetime.now(UTC)


class _ModelMeta(msgspec.StructMeta):
    """Takes `tenant=` beside what msgspec takes."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        tenant: str | None = None,
        **options: Any,
    ) -> _ModelMeta:
        if tenant is not None:
            namespace["__tenant__"] = tenant
        return super().__new__(mcls, name, bases, namespace, **options)


class DatabaseModel(msgspec.Struct, kw_only=True, metaclass=_ModelMeta):
    """One row of a table; subclass it, and name the table.

    `class Note(DatabaseModel, tenant="org_id")` names the field that says whose a row is: the table gets row-level
    security, and a repository reads and writes the current tenant's rows alone.

    Example:
        class User(DatabaseModel):
            __tablename__ = "users"

            name: Annotated[str, Meta(min_length=1)]
            email: Annotated[str, Column(unique=True)]

    Class attributes:
        __tablename__: required.
        __max_value_bytes__: a text, bytes or JSON value past it is refused; 16 MiB.
    """

    __tablename__: ClassVar[str] = ""
    __max_value_bytes__: ClassVar[int] = MAX_VALUE_BYTES
    __tenant__: ClassVar[str] = ""

    id: UUID = msgspec.field(default_factory=new_id)
    """Version 7: sorts by the time it was made."""
    created_at: datetime = msgspec.field(default_factory=utc_now)
    updated_at: datetime = msgspec.field(default_factory=utc_now)

    def dict_for_db(self) -> dict[str, Any]:
        """Return the row as it is written: field to value, enums as their values, documents as JSON.

        Raises:
            InvalidValue: a value does not fit its field.
        """
        table = table_of(type(self))
        return dict(zip(table.names, table.parameters(self), strict=True))

    @classmethod
    def get_create_table_sql(cls) -> str:
        """Return the statements that make table and indexes, as a migration may hold them.

        Raises:
            ConfigurationError: the model cannot be a table.
        """
        from .ddl import create_table  # which builds on this module

        return create_table(table_of(cls))


class Table:
    """A model compiled for the database; made by `table_of`.

    Args:
        model: the class.
    """

    def __init__(self, model: type[DatabaseModel]) -> None:
        if not model.__tablename__:
            raise ConfigurationError(f"model {model.__name__!r} names no table; write __tablename__ = '...' in it")
        self.model = model
        self.name = validate_identifier(model.__tablename__, f"model {model.__name__!r}: table")
        if model.__struct_config__.array_like:
            raise ConfigurationError(f"model {model.__name__!r} is array_like, which has no names; leave that out")
        try:
            msgspec.convert({}, model)
        except (msgspec.ValidationError, TenantRequired):
            pass  # it has required fields
        except TypeError as error:
            raise ConfigurationError(f"model {model.__name__!r}: {error}; say it with Column(check='...')") from None
        except (NameError, ValueError) as error:
            raise ConfigurationError(
                f"model {model.__name__!r}: {error}; correct the annotations of its fields"
            ) from None
        self.fields: Mapping[str, Field] = _fields(model, self.name)
        self.names = tuple(self.fields)
        encoded = {each.name: each.encode_name for each in msgspec.structs.fields(model)}
        self._encoded = tuple(encoded[each] for each in self.names)
        """As msgspec knows them, which may rename them."""
        self.tenant = _tenant_of(model, self.fields)
        """The field that says whose a row is; None where rows belong to nobody."""
        self.defaults = {
            each.name: each.default if each.default is not msgspec.NODEFAULT else each.default_factory()
            for each in msgspec.structs.fields(model)
            if not each.required and each.name != model.__tenant__
        }
        """Of the fields that have one; of a factory, what it made once."""
        self._get: Callable[[Any], tuple[Any, ...]] = operator.attrgetter(*self.names)
        self._dumps = tuple(each.dump for each in self.fields.values())

    def field(self, name: object) -> Field:
        """Return a field. Raises UnknownField."""
        found = self.fields.get(name) if isinstance(name, str) else None
        if found is None:
            raise UnknownField(
                f"table {self.name!r} has no such field; known are {', '.join(self.names)}",
                details={"table": self.name},
            )
        return found

    def check(self, model: DatabaseModel) -> DatabaseModel:
        """Return a model whose values fit its annotations. Raises InvalidValue where they do not."""
        if type(model) is not self.model:
            raise InvalidValue(f"table {self.name!r} takes {self.model.__name__}, not {type(model).__name__}")
        try:
            values = msgspec.structs.asdict(model)
            if self._encoded != self.names:
                values = dict(zip(self._encoded, self._get(model), strict=True))
            return msgspec.convert(values, self.model)
        except msgspec.ValidationError as error:
            raise invalid(self.name, error) from None

    def parameters(self, model: DatabaseModel) -> list[Any]:
        """Return the checked values of a model, in the order of `names`. Raises InvalidValue."""
        return self.dump(self.check(model))

    def dump(self, checked: DatabaseModel) -> list[Any]:
        """Return the values of a model that `check` returned, in the order of `names`. Raises InvalidValue."""
        values = self._get(checked)
        return [None if value is None else dump(value) for dump, value in zip(self._dumps, values, strict=True)]

    def load(self, row: tuple[Any, ...]) -> DatabaseModel:
        """Return the model of a row with the columns `names`. Raises InvalidValue where it does not fit."""
        try:
            return msgspec.convert(dict(zip(self._encoded, row, strict=True)), self.model, str_keys=True)
        except msgspec.ValidationError as error:
            raise InvalidValue(
                f"table {self.name!r}: a stored row does not fit the model: {error}; migrate the data"
            ) from None

    def changes(self, data: Mapping[str, object]) -> list[Any]:
        """Return the checked values of some fields, in the order given.

        Raises:
            UnknownField: there is no such field.
            InvalidValue: a value does not fit, a field is not the program's to set, or there is none.
        """
        if not data or not isinstance(data, Mapping):
            raise InvalidValue(f"table {self.name!r}: there is nothing to change; give at least one field")
        for name in data:
            if name in MANAGED or name == self.model.__tenant__:
                raise InvalidValue(f"field {name!r} is set by the repository; leave it out", details={"field": name})
        return [self.parameter(self.field(name), value) for name, value in data.items()]

    def parameter(self, field: Field, value: object) -> Any:
        """Return one checked value. Raises InvalidValue."""
        try:
            checked = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            raise invalid(self.name, error, field.name) from None
        return None if checked is None else field.dump(checked)

    def comparand(self, field: Field, value: object) -> Any:
        """Return a value to compare a field with: of its type, whatever its constraints. Raises InvalidValue."""
        try:
            return field.dump(msgspec.convert(value, field.base))
        except msgspec.ValidationError as error:
            raise invalid(self.name, error, field.name) from None

    def document(self, field: Field, value: object) -> Jsonb:
        """Return a part of a document to look for. Raises InvalidValue."""
        try:
            encoded = msgspec.json.encode(value)
        except (TypeError, UnicodeEncodeError):
            reason = f"table {self.name!r}, field {field.name!r}: value has no encoding as JSON"
            raise InvalidValue(reason, details={"field": field.name}) from None
        return Jsonb(encoded, dumps=bytes)


def invalid(table: str, error: msgspec.ValidationError, field: str = "") -> InvalidValue:
    """Translate msgspec's error, which names types and limits, never the value."""
    text, _, path = str(error).partition(" - at `")
    name = field or path.removeprefix("$.").partition("`")[0].partition(".")[0].partition("[")[0]
    where = f"table {table!r}, field {name!r}" if name else f"table {table!r}"
    return InvalidValue(f"{where}: {text}", details={"table": table, **({"field": name} if name else {})})


def _fields(model: type[DatabaseModel], table: str) -> dict[str, Field]:
    hints = get_type_hints(model, include_extras=True)
    defaults = {each.name: each.default for each in msgspec.structs.fields(model)}
    own = [name for name in model.__struct_fields__ if name not in MANAGED]
    return {
        name: make_field(table, name, hints[name], defaults[name], model.__max_value_bytes__)
        for name in ("id", *own, *_LAST)
    }


def _tenant_of(model: type[DatabaseModel], fields: Mapping[str, Field]) -> Field | None:
    if not model.__tenant__:
        return None
    field = fields.get(model.__tenant__)
    if field is None or field.name in MANAGED:
        raise ConfigurationError(
            f"model {model.__name__!r}: tenant={model.__tenant__!r} is none of its own fields; name the one that says "
            f"whose a row is"
        )
    if field.base not in (str, int, UUID) or field.nullable:
        raise ConfigurationError(
            f"model {model.__name__!r}: field {field.name!r} cannot be a tenant's id; make it a str, an int or a UUID "
            f"that is never None"
        )
    return field


@functools.cache
def table_of(model: type[DatabaseModel]) -> Table:
    """Return the table of a model, compiled once.

    Raises:
        ConfigurationError: it names no table, or a field cannot be a column.
    """
    return Table(model)
