"""The table that all contestants read and write, and the rows in it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from cliffracer_db import DatabaseModel
from cliffracer_db.ids import new_id

__all__ = ["COLUMNS", "TABLE", "TYPES", "Order", "Row", "make_row"]

TABLE = "orders"
COLUMNS = ("id", "customer", "amount", "paid", "created_at", "updated_at")
TYPES = ("uuid", "text", "int8", "bool", "timestamptz", "timestamptz")
Row = tuple[UUID, str, int, bool, datetime, datetime]


class Order(DatabaseModel):
    __tablename__ = TABLE

    customer: str
    amount: int
    paid: bool = False


def make_row(number: int) -> Row:
    """Return what a model of this number has, in the order of `COLUMNS`."""
    now = datetime.now(UTC)
    return (new_id(), f"customer {number}", number, False, now, now)
