"""`SecureRepository`: a repository that trusts nobody."""

from __future__ import annotations

import contextlib
import logging
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar
from uuid import UUID

from cliffracer_core.errors import ConfigurationError

from .columns import Field
from .conditions import AnyOf, Condition, Filter
from .database import Database
from .errors import InvalidValue, SuspiciousInput, UnknownField, ValueTooLarge
from .ids import as_id
from .models import MANAGED, DatabaseModel
from .repository import Repository

__all__ = ["SecureRepository"]

M = TypeVar("M", bound=DatabaseModel)
logger = logging.getLogger("cliffracer.db")

MAX_TEXT_CHARACTERS = 10_000
_SUSPICIOUS: Mapping[str, re.Pattern[str]] = {
    "a statement after a quote": re.compile(
        r"['\";]\s*[);]*\s*(?:drop\s+(?:table|database|schema|view|role|user)|delete\s+from|insert\s+into|truncate\s+table"
        r"|update\s+\S+\s+set|alter\s+(?:table|role|user|system)|create\s+(?:table|function|role|user|or\s+replace)"
        r"|grant\s+\S+\s+to|copy\s+\S+\s+(?:to|from)|exec(?:ute)?\s+(?:immediate|xp_))\b",
        re.I,
    ),
    "a union of queries": re.compile(r"\bunion\b(?:\s|/\*.*?\*/)+(?:all\b(?:\s|/\*.*?\*/)+)?select\b", re.I | re.S),
    "a condition that always holds": re.compile(
        r"['\")]\s*(?:\)\s*)*(?:or|and)\s*\(?\s*(['\"]?)[\w.]*\1\s*=\s*(['\"]?)[\w.]*", re.I
    ),
    "a comment that cuts a statement": re.compile(
        r"(?:['\";)]\s*(?:--|#)|/\*.*\*/\s*(?:or|and|union|select)\b)", re.I | re.S
    ),
    "a function that waits or reads files": re.compile(
        r"\b(?:pg_sleep|pg_read_file|pg_ls_dir|lo_import|dblink|benchmark|randomblob|extractvalue|updatexml"
        r"|dbms_\w+\.\w+|utl_\w+\.\w+|xp_\w+)\s*\(|\b!?sleep\([\d(]|\bwaitfor\s+delay\b",
        re.I,
    ),
    "a query inside another": re.compile(
        r"\(\s*select\b\s*(?:[*'(\d@]|case\b|distinct\b|\w+\s*\(|\w+\s+from\b)|;\s*select\b", re.I
    ),
    "a number compared with itself": re.compile(r"\b(?:or|and|where)\s+\(*\s*(\d+)\s*=\s*(?:\1\b|[('!]|\w+\()", re.I),
    "a choice between values": re.compile(r"\bcase\s+when\s*['(\d].*\bthen\b|\b(?:iif|elt|make_set)\(", re.I | re.S),
    "a program to run": re.compile(r"\bcopy\b.*\b(?:to|from)\b\s+program\b", re.I | re.S),
}


class SecureRepository(Repository[M]):
    """A `Repository` that, besides, refuses what looks like an attack, and logs it without the value.

    Nothing depends on that: values never become part of a statement in either class. It stops an attack
    where it first shows, and keeps it from what reads the rows later.

    Args:
        model: a subclass of `DatabaseModel`.
        db: where the table is; the service's own database where None.
        tables: the tables this program may use; the model's own where None.
        readable: fields to filter and order by; all where None.
        writable: fields that may be given values that are not the default; all where None.
        max_text: characters of a text at most.
        unchecked: fields that may hold any text, such as an article's body.

    Raises:
        ConfigurationError: the model's table is not in `tables`, or a field does not exist.
    """

    def __init__(
        self,
        model: type[M],
        db: Database | None = None,
        *,
        tables: Collection[str] | None = None,
        readable: Collection[str] | None = None,
        writable: Collection[str] | None = None,
        max_text: int = MAX_TEXT_CHARACTERS,
        unchecked: Collection[str] = (),
    ) -> None:
        super().__init__(model, db)
        if tables is not None and self.table.name not in tables:
            raise ConfigurationError(
                f"table {self.table.name!r} is not among those allowed: {', '.join(sorted(tables))}; add it there"
            )
        for name in (*(readable or ()), *(writable or ()), *unchecked):
            if name not in self.table.fields:
                raise ConfigurationError(f"table {self.table.name!r} has no field {name!r}; correct the list")
        self._bulk = None  # each model is looked at
        self._key = self._identify
        self._tables = tables
        self._readable = frozenset(self.table.names if readable is None else {*readable, "id"})
        own = set(self.table.names) - {*MANAGED, model.__tenant__}
        self._writable = frozenset(own if writable is None else writable)
        self._guarded = tuple(sorted(own - self._writable))
        self._max_text = max_text
        self._unchecked = frozenset(unchecked)

    def _copy(self, db: Database) -> Self:
        return type(self)(
            self.model, db, tables=self._tables, readable=self._readable, writable=self._writable,
            max_text=self._max_text, unchecked=self._unchecked,
        )  # fmt: skip

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Log what is refused inside: the field, where it is one of the model's, and why; never the value."""
        try:
            yield
        except InvalidValue as error:
            field = error.details.get("field", "of no known name")
            logger.warning("table %r refused field %r: %s", self.table.name, field, error.code)
            raise

    def _identify(self, id: object) -> UUID:
        with self._watched():
            return as_id(id)

    def _check(self, model: M) -> M:
        with self._watched():
            checked = super()._check(model)
            for name in self._guarded:
                if getattr(checked, name) != self._defaults.get(name, checked):
                    raise UnknownField(f"field {name!r} may not be written here", details={"field": name})
            for name in self._writable:
                self._inspect(name, getattr(checked, name))
            self.table.dump(checked)
            return checked

    @property
    def _defaults(self) -> Mapping[str, Any]:
        return self.table.defaults

    def _changes(self, data: Mapping[str, object]) -> list[Any]:
        with self._watched():
            if isinstance(data, Mapping):
                for name, value in data.items():
                    if name in self._guarded:
                        raise UnknownField(f"field {name!r} may not be written here", details={"field": name})
                    self._inspect(name, value)
            return super()._changes(data)

    def _filter(self, conditions: Sequence[Condition | AnyOf], equal: dict[str, object]) -> Filter:
        with self._watched():
            for condition in _flat(conditions):
                self._may_read(condition.field)
                self._inspect(condition.field, condition.value)
            for name, value in equal.items():
                self._may_read(name)
                self._inspect(name, value)
            return super()._filter(conditions, equal)

    def _order(self, order_by: str | Sequence[str]) -> list[tuple[str, bool]]:
        with self._watched():
            order = super()._order(order_by)
            for name, _ in order:
                self._may_read(name)
            return order

    def _field(self, name: object) -> Field:
        with self._watched():
            return super()._field(name)

    def _place(self, field: Field, after: str) -> list[Any]:
        with self._watched():
            return super()._place(field, after)

    def _may_read(self, name: object) -> None:
        field = self.table.field(name)
        if field.name not in self._readable:
            details = {"field": field.name}
            raise UnknownField(f"field {field.name!r} may not be filtered or ordered by", details=details)

    def _inspect(self, name: str, value: object) -> None:
        """Refuse a text, at any depth of the value, that is too long or looks like an attack."""
        if name in self._unchecked:
            return
        for text in _texts(value):
            if len(text) > self._max_text:
                reason = f"field {name!r}: a text has {len(text)} characters; {self._max_text} are allowed"
                raise ValueTooLarge(reason, details={"field": name})
            plain = unicodedata.normalize("NFKC", text)
            for what, pattern in _SUSPICIOUS.items():
                if pattern.search(plain):
                    reason = f"field {name!r}: the text has {what}, as an attack has; rephrase it"
                    raise SuspiciousInput(reason, details={"field": name})


def _flat(conditions: Iterable[object]) -> Iterable[Condition]:
    for each in conditions:
        if isinstance(each, AnyOf):
            yield from each.conditions
        elif isinstance(each, Condition):
            yield each


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(key)
            yield from _texts(each)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _texts(each)
    elif hasattr(value, "__struct_fields__"):
        for name in value.__struct_fields__:
            yield from _texts(getattr(value, name))
