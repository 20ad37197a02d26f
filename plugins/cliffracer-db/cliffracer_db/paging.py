"""`Page`, the text that says where the next one begins, and the number of rows."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from psycopg.types.numeric import Int8

from .columns import Field
from .errors import InvalidValue
from .models import DatabaseModel, Table

__all__ = ["Page", "checked_count", "place_of", "read_place"]

M = TypeVar("M")
_BIGINT = 2**63
_PLACE = {"field": "after"}


class Page(msgspec.Struct, Generic[M]):
    """Some rows, and where the next ones begin."""

    items: list[M]
    next: str | None = None
    """What `after` of the next page is; None after the last."""


def place_of(model: DatabaseModel, field: str) -> str:
    """Return where the rows after this one begin, as text that an URL can carry."""
    value = getattr(model, field)
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)  # of which JSON has no number
    key = msgspec.json.encode([field, value, model.id])
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def read_place(table: Table, field: Field, text: str) -> list[Any]:
    """Return a place's values to compare with: the field's and the id, or the id alone.

    Raises:
        InvalidValue: the text is no place, or of another order.
    """
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        name, value, id = msgspec.json.decode(raw, type=tuple[str, msgspec.Raw, UUID])
        if name != field.name:
            raise InvalidValue("'after' is of pages in another order; begin with the first page", details=_PLACE)
        key = field.dump(msgspec.json.decode(value, type=field.base, strict=field.base is not float))
    except (binascii.Error, UnicodeError, msgspec.DecodeError, AttributeError):
        raise InvalidValue("'after' is no place; give 'next' of the page before", details=_PLACE) from None
    return [key, id] if name != "id" else [id]


def checked_count(value: object, what: str) -> Int8:
    """Return a number of rows. Raises InvalidValue for what is no integer, or below 0."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _BIGINT:
        raise InvalidValue(f"{what} is no integer from 0 to 2**63 - 1", details={"field": what})
    return Int8(value)
