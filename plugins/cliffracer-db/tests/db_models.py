"""The models that several test files use."""

from __future__ import annotations

import enum
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from cliffracer_db import Column, Database, DatabaseModel
from msgspec import Meta, Struct
from psycopg import sql


class Color(enum.Enum):
    RED = "red"
    ODD = "it's"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Address(Struct):
    city: str
    zip: Annotated[str, Meta(max_length=5)] = ""


class Org(DatabaseModel):
    __tablename__ = "orgs"

    name: Annotated[str, Column(unique=True)]


class User(DatabaseModel):
    __tablename__ = "users"

    name: Annotated[str, Meta(min_length=1, max_length=50)]
    email: Annotated[str, Column(unique=True)]
    age: Annotated[int, Meta(ge=0, le=10_000)] = 0
    org_id: Annotated[UUID | None, Column(references="orgs.id", index=True)] = None


class Everything(DatabaseModel):
    __tablename__ = "everything"

    text: Annotated[str, Meta(pattern="^[a-zä%]*$")]
    integer: Annotated[int, Meta(gt=-(2**40), lt=2**40, multiple_of=2)]
    real: float
    yes: bool
    amount: Annotated[Decimal, Meta()]
    moment: datetime
    day: date
    key: UUID
    blob: Annotated[bytes, Meta(max_length=1000)]
    color: Color
    size: Size
    kind: Literal["a", "b"]
    tags: Annotated[list[str], Meta(max_length=3)]
    numbers: Annotated[dict[int, float], Meta(min_length=1, max_length=3)]
    address: Address
    maybe: str | None = None
    maybe_address: Address | None = None
    active: bool = True
    note: str = "it's 100%"
    rate: float = 0.5
    chosen: Color = Color.ODD
    made: Annotated[datetime | None, Column(default="now()")] = None


async def make_tables(db: Database, *models: type[DatabaseModel]) -> None:
    for model in models:
        await db.execute(sql.SQL(model.get_create_table_sql()))
