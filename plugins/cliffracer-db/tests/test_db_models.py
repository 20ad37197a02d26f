from __future__ import annotations

import datetime
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from cliffracer_db import CheckViolation, Column, Database, DatabaseModel, InvalidValue, Repository, where
from cliffracer_db.ids import new_id
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from psycopg import sql

from cliffracer_core.errors import ConfigurationError, DatabaseError

from .db_models import Address, Color, Everything, Org, Size, User, make_tables
from .db_tenants import Note

UTC = datetime.UTC


def everything(**changes: Any) -> Everything:
    values: dict[str, Any] = {
        "text": "grün", "integer": -4, "real": 0.1, "yes": True, "amount": Decimal("12345678901234567890.123456789"),
        "moment": datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), "day": datetime.date(1, 1, 1), "key": uuid4(),
        "blob": b"\x00\xff", "color": Color.ODD, "size": Size.LARGE, "kind": "b", "tags": ["a", "b'\"\\"],
        "numbers": {1: 0.5, -7: 1e300}, "address": Address("Zürich 🌍", "8000"),
    }  # fmt: skip
    return Everything(**{**values, **changes})


async def test_every_type_comes_back_when_it_was_stored(db: Database) -> None:
    """What is written is read as an equal model of the same types, for every kind of column."""
    await make_tables(db, Everything)
    things = Repository(Everything, db)
    stored = await things.create(everything(text="grn", maybe="x", maybe_address=Address("y")))
    found = await things.get(stored.id)
    assert found == stored
    assert (type(found.size), type(found.color), type(found.address)) == (Size, Color, Address)
    assert found.amount.as_tuple() == stored.amount.as_tuple()
    assert found.moment.utcoffset() == datetime.timedelta(0)
    await things.create_many([copied := everything(text="%")])
    assert await things.get(copied.id) == copied


async def test_rows_inserted_by_hand_get_the_defaults(db: Database) -> None:
    """Plain defaults of the model and SQL defaults are defaults of the columns."""
    await make_tables(db, Everything)
    columns = {name: value for name, value in everything(text="x").dict_for_db().items() if name not in OPTIONAL}
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    places = sql.SQL(", ").join(sql.SQL("%s") for _ in columns)
    await db.execute(sql.SQL("insert into everything ({}) values ({})").format(names, places), list(columns.values()))
    (found,) = await Repository(Everything, db).list()
    assert (found.active, found.note, found.rate, found.chosen) == (True, "it's 100%", 0.5, Color.ODD)
    assert found.made is not None


OPTIONAL = ("maybe", "maybe_address", "active", "note", "rate", "chosen", "made")


async def test_ddl_makes_what_the_model_says_when_the_catalogue_is_asked(db: Database) -> None:
    """Types, NOT NULL, constraints and indexes of the catalogue are those of the model; making twice is no error."""
    await make_tables(db, Org, User, Org, User)
    columns = await db.select(
        sql.SQL(
            "select column_name, data_type, is_nullable from information_schema.columns where table_name = 'users' "
            "order by ordinal_position"
        )
    )
    assert [tuple(each.values()) for each in columns] == [
        ("id", "uuid", "NO"),
        ("name", "text", "NO"),
        ("email", "text", "NO"),
        ("age", "bigint", "NO"),
        ("org_id", "uuid", "YES"),
        ("created_at", "timestamp with time zone", "NO"),
        ("updated_at", "timestamp with time zone", "NO"),
    ]
    constraints = await db.select(
        sql.SQL("select conname from pg_constraint where conrelid = 'users'::regclass and contype <> 'n' order by 1")
    )
    assert [each["conname"] for each in constraints] == [
        "users_age_ge", "users_age_le", "users_email_key", "users_name_max_length", "users_name_min_length",
        "users_org_id_fkey", "users_pkey",
    ]  # fmt: skip
    indexes = await db.select(sql.SQL("select indexname from pg_indexes where tablename = 'users' order by 1"))
    assert [each["indexname"] for each in indexes] == ["users_email_key", "users_org_id_idx", "users_pkey"]


@pytest.mark.parametrize(
    ("column", "bad"),
    [
        ("text", "'ABC'"), ("integer", "3"), ("integer", "2::bigint ^ 41"), ("color", "'blue'"), ("size", "3"),
        ("kind", "'c'"), ("tags", """'["a","b","c","d"]'"""), ("blob", "repeat('x', 1001)::bytea"), ("real", "null"),
        ("numbers", """'{"1": 1, "2": 2, "3": 3, "4": 4}'"""), ("numbers", "'{}'"),
    ],
)  # fmt: skip
async def test_table_refuses_what_the_model_would_when_another_program_writes(
    db: Database, column: str, bad: str
) -> None:
    """Constraints of `Meta`, enums and Literals are CHECKs of the table."""
    await make_tables(db, Everything)
    await Repository(Everything, db).create(everything(text="x"))
    statement = sql.SQL("update everything set {} = {}").format(sql.Identifier(column), sql.SQL(bad))
    with pytest.raises(InvalidValue):
        await db.execute(statement)


def test_ddl_passes_squawk(tmp_path: Path) -> None:
    """The linter of migrations has nothing to say of the generated statements."""
    file = tmp_path / "tables.sql"
    text = "".join(model.get_create_table_sql() for model in (Org, User, Everything, Note))
    file.write_text(f"set lock_timeout = '5s';\nset statement_timeout = '30s';\n{text}")
    program = Path(sys.executable).parent / "squawk"
    command: list[str | Path] = [program, "--pg-version", "18.0", "--assume-in-transaction", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    file.write_text("alter table users add column x int not null;")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_dict_for_db_is_the_row() -> None:
    """Each column by name: enums as their values, None as None."""
    row = everything(text="x").dict_for_db()
    assert list(row) == [
        "id",
        *[n for n in Everything.__annotations__ if n != "__tablename__"],
        "created_at",
        "updated_at",
    ]
    assert (row["color"], row["size"], row["maybe"], row["text"]) == ("it's", 2, None, "x")


@pytest.mark.parametrize(
    ("annotation", "named"),
    [(complex, "complex"), (int | str, "no column type"), (Annotated[int, Column(references="users")], "table.column")],
)
def test_model_is_refused_when_a_field_cannot_be_a_column(annotation: Any, named: str) -> None:
    """A field of a type without column type is refused by name when the table is first needed."""

    class Bad(DatabaseModel):
        __tablename__ = "bads"
        __annotations__ = {"field": annotation}

    with pytest.raises(ConfigurationError, match=rf"field 'field' of table 'bads'.*{named}|{named}"):
        Bad.get_create_table_sql()


async def test_condition_of_a_column_is_the_tables_rule(db: Database) -> None:
    """`Column(check=...)` says what msgspec cannot check, such as bounds of a Decimal; breaking it names the field."""

    class Price(DatabaseModel):
        __tablename__ = "prices"
        amount: Annotated[Decimal, Column(check="amount >= 0")]

    await make_tables(db, Price)
    prices = Repository(Price, db)
    await prices.create(Price(amount=Decimal(0)))
    with pytest.raises(CheckViolation) as caught:
        await prices.create(Price(amount=Decimal("-0.01")))
    assert caught.value.details == {"table": "prices", "field": "amount", "constraint": "prices_amount_check"}

    class Bad(DatabaseModel):
        __tablename__ = "bads"
        amount: Annotated[Decimal, Meta(ge=0)]

    with pytest.raises(ConfigurationError, match="Column"):
        Bad.get_create_table_sql()

    class Unknown(DatabaseModel):
        __tablename__ = "unknowns"
        amount: "Nowhere"  # type: ignore[name-defined]  # noqa: F821, UP037

    class Huge(DatabaseModel):
        __tablename__ = "huges"
        amount: Annotated[int, Meta(ge=2**70)]

    for model, named in ((Unknown, "Nowhere"), (Huge, "bounds")):
        with pytest.raises(ConfigurationError, match=f"model '{model.__name__}'.*{named}"):
            Repository(model)

    class Named(DatabaseModel):
        __tablename__ = "nameds"
        text: Annotated[str, Meta(pattern="(?P<a>x)")]

    await make_tables(db, Named)
    with pytest.raises(DatabaseError, match="pattern is none that PostgreSQL reads"):
        await Repository(Named, db).create(Named(text="x"))


async def test_fields_may_have_other_names_outside(db: Database) -> None:
    """`rename=` is for JSON: columns and conditions have the fields' own names, and every method works."""

    class Person(DatabaseModel, rename="camel"):
        __tablename__ = "order"  # and a word of SQL is a table's name as any other
        first_name: str
        select: int = 0

    await make_tables(db, Person)
    people = Repository(Person, db)
    ada = await people.create(Person(first_name="Ada"))
    assert list(ada.dict_for_db()) == ["id", "first_name", "select", "created_at", "updated_at"]
    assert await people.create_many([Person(first_name="Bob", select=1)]) == 1
    assert await people.get(ada.id) == ada
    assert [each.first_name for each in await people.find(where("select") < 2, order_by="-first_name")] == [
        "Bob",
        "Ada",
    ]
    assert (await people.update(ada.id, {"first_name": "Eve"})).first_name == "Eve"

    class Row(DatabaseModel, array_like=True):
        __tablename__ = "rows"

    with pytest.raises(ConfigurationError, match="array_like"):
        Repository(Row)


@pytest.mark.parametrize("name", ["", "Users", 'a"b', "a b", "1a", "x" * 64, "a;drop table users"])
def test_model_is_refused_when_its_table_has_no_plain_name(name: str) -> None:
    """A table's name needs no quoting."""

    class Bad(DatabaseModel):
        __tablename__ = name

    with pytest.raises(ConfigurationError):
        Bad.get_create_table_sql()


def test_ids_grow_and_are_version_7_when_made_in_turn() -> None:
    """Later ids of a process are greater, also within one tick of the clock, and no two are the same."""
    ids = [new_id() for _ in range(20_000)]
    assert ids == sorted(set(ids))
    assert {each.version for each in ids} == {7}
    assert {each.variant for each in ids} == {uuid4().variant}
    made_ms = ids[0].int >> 80
    assert abs(made_ms / 1000 - datetime.datetime.now(UTC).timestamp()) < 60


def test_ids_differ_when_threads_make_them_at_once() -> None:
    """No two ids are the same, whoever makes them."""
    found: list[UUID] = []
    threads = [threading.Thread(target=lambda: found.extend(new_id() for _ in range(5000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 20_000


def any_text(most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=()), max_size=most)


@given(any_text(60), st.integers(-10, 20_000) | st.integers(), any_text(10))
def test_a_value_is_written_or_refused_when_it_is_any(name: str, age: int, city: str) -> None:
    """Every value either becomes a parameter or raises InvalidValue that names the field."""
    user = User(name=name, email=city, age=age)
    fits = 1 <= len(name) <= 50 and 0 <= age <= 10_000
    if not fits or any("\x00" in each or not _encodes(each) for each in (name, city)):
        with pytest.raises(InvalidValue) as caught:
            user.dict_for_db()
        assert caught.value.details["field"] in ("name", "email", "age")
    else:
        row = user.dict_for_db()
        assert (row["name"], row["email"], int(row["age"])) == (name, city, age)


def _encodes(text: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in text)


def test_constraint_names_stay_apart_when_they_are_cut() -> None:
    """A long name ends in a hash of the whole, within PostgreSQL's 63 characters."""

    class Long(DatabaseModel):
        __tablename__ = "t" * 50
        a_long_name_of_a_field_1: Annotated[str, Meta(min_length=1)]
        a_long_name_of_a_field_2: Annotated[str, Meta(min_length=1)]

    from cliffracer_db.ddl import constraints_of
    from cliffracer_db.models import table_of

    names = [name for name, _ in constraints_of(table_of(Long))]
    assert len(set(names)) == len(names) == 3
    assert max(map(len, names)) <= 63
