"""`Bulk`: many models checked column by column, where that says as much as checking each.

A column of plain values is checked by a handful of calls for thousands of rows. What such a check does not
settle (documents, enums, patterns, or a value that is wrong) is left to the check of each model, which also
names what is wrong.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from datetime import MAXYEAR, MINYEAR, date, datetime
from decimal import Decimal
from typing import Annotated, Any, get_args, get_origin
from uuid import UUID

import msgspec

from .columns import Field
from .models import DatabaseModel, Table

__all__ = ["Bulk"]

Check = Callable[[Sequence[Any]], bool]
_PLAIN = (bool, int, float, str, Decimal, datetime, date, UUID, bytes)
_BIGINT = 2**63


_zone, _year = operator.attrgetter("tzinfo"), operator.attrgetter("year")  # without a Python step for each row
_EDGES = {MINYEAR, MAXYEAR}
"""Years of which a time may lie outside of what can be read, in UTC."""


class Bulk:
    """Check many models of one table.

    Args:
        table: of the models.
    """

    def __init__(self, table: Table) -> None:
        self._model = table.model
        self._get: Callable[[DatabaseModel], tuple[Any, ...]] = operator.attrgetter(*table.names)
        limit = table.model.__max_value_bytes__
        checks = [_check_of(field, limit) for field in table.fields.values()]
        # `__post_init__` of a model has a say of its own
        whole = None in checks or hasattr(table.model, "__post_init__")
        self._checks = None if whole else [each for each in checks if each is not None]

    def rows(self, models: Sequence[DatabaseModel]) -> list[tuple[Any, ...]] | None:
        """Return the rows to write, or None where each model has to be checked by itself."""
        if self._checks is None or set(map(type, models)) != {self._model}:
            return None
        rows = list(map(self._get, models))
        if all(check(column) for check, column in zip(self._checks, zip(*rows, strict=True), strict=True)):
            return rows
        return None


def _check_of(field: Field, max_bytes: int) -> Check | None:
    """Return what settles that values fit a field and are written as they are; None where nothing short does."""
    metas = _metas(field.type)
    if field.base not in _PLAIN or metas is None:
        return None
    kind: type = field.base
    allowed = {kind, type(None)} if field.nullable else {kind}
    least = [each.min_length for each in metas if each.min_length is not None]
    most = [each.max_length for each in metas if each.max_length is not None]
    bounds = [each for each in metas if any(getattr(each, name) is not None for name in ("ge", "gt", "le", "lt"))]

    def lengths(values: Sequence[Any]) -> bool:
        sizes = list(map(len, values))
        longest = max(sizes, default=0)
        return (
            longest * (4 if kind is str else 1) <= max_bytes
            and (not most or longest <= min(most))
            and (not least or min(sizes, default=0) >= max(least))
        )

    def text(values: Sequence[Any]) -> bool:
        joined = "".join(values)
        return lengths(values) and "\x00" not in joined and (joined.isascii() or _encodes(joined))

    def integers(values: Sequence[Any]) -> bool:
        smallest, largest = min(values, default=0), max(values, default=0)
        return (
            smallest >= -_BIGINT
            and largest < _BIGINT
            and all(each.ge is None or smallest >= each.ge for each in bounds)
            and all(each.gt is None or smallest > each.gt for each in bounds)
            and all(each.le is None or largest <= each.le for each in bounds)
            and all(each.lt is None or largest < each.lt for each in bounds)
        )

    def moments(values: Sequence[Any]) -> bool:
        return None not in map(_zone, values) and not _EDGES & set(map(_year, values))

    own: dict[type, Check] = {str: text, bytes: lengths, int: integers, datetime: moments}
    special = own.get(kind)
    if bounds and kind is not int:
        return None

    def check(values: Sequence[Any]) -> bool:
        types = set(map(type, values))
        if not types <= allowed:
            return False
        if special is None:
            return True
        return special(values if len(types) == 1 and type(None) not in types else [v for v in values if v is not None])

    return check


def _metas(annotation: Any) -> list[msgspec.Meta] | None:
    """Return the constraints of a field; None where one is a pattern, or of a kind that is not known here."""
    found: list[msgspec.Meta] = []
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        found += [each for each in more if isinstance(each, msgspec.Meta)]
    for part in get_args(annotation):
        if get_origin(part) is Annotated:  # `Annotated[str, Meta(...)] | None`
            inner = _metas(part)
            if inner is None:
                return None
            found += inner
    hard = ("pattern", "multiple_of", "tz")
    return None if any(getattr(each, name) is not None for each in found for name in hard) else found


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
