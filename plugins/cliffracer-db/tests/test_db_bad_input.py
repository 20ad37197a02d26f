"""What users may send: nothing of it is written, run as SQL, or told to others."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable
from typing import Any
from uuid import uuid4

import pytest
from cliffracer_db import (
    Database,
    DatabaseModel,
    InvalidValue,
    NotNullViolation,
    Repository,
    UnknownField,
    UnknownTable,
    ValueTooLarge,
    where,
)
from cliffracer_db.conditions import Condition
from psycopg import sql

from cliffracer_core.errors import DatabaseError, to_body

from .db_injections import OWN, PUBLISHED
from .db_models import Everything, Org, User, make_tables
from .test_db_models import everything

EAST, WEST = (datetime.timezone(datetime.timedelta(hours=each)) for each in (1, -1))


@pytest.fixture
async def users(db: Database) -> Repository[User]:
    await make_tables(db, Org, User, Everything)
    return Repository(User, db)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 51}, "name"),
        ({"name": 5}, "name"),
        ({"name": None}, "name"),
        ({"name": b"bytes"}, "name"),
        ({"name": "nul \x00"}, "name"),
        ({"email": "\ud83d"}, "email"),
        ({"age": -1}, "age"),
        ({"age": 10_001}, "age"),
        ({"age": 2**63}, "age"),
        ({"age": "7"}, "age"),
        ({"age": 1.5}, "age"),
        ({"age": float("nan")}, "age"),
        ({"org_id": "no id"}, "org_id"),
        ({"org_id": 1}, "org_id"),
        ({"created_at": datetime.datetime(2026, 1, 1)}, "created_at"),
        ({"created_at": "soon"}, "created_at"),
        ({"id": None}, "id"),
    ],
)  # fmt: skip
async def test_value_is_refused_when_it_does_not_fit(
    users: Repository[User], changes: dict[str, Any], field: str
) -> None:
    """create, create_many, upsert and update name the field, as a 400, and write nothing; the value stays here."""
    values = {"name": "ada", "email": "ada@example.com", **changes}
    made = await users.create(User(name="old", email="old@example.com"))
    attempts: list[Awaitable[object]] = [
        users.create(User(**values)),
        users.create_many([User(name="b", email="b"), User(**values)]),
        users.upsert(User(**values), on="email"),
    ]
    if field not in ("id", "created_at"):
        attempts.append(users.update(made.id, changes))
    for attempt in attempts:
        with pytest.raises(InvalidValue) as caught:
            await attempt
        assert (caught.value.status, caught.value.details["field"]) == (400, field)
    assert await users.list() == [made]


@pytest.mark.parametrize(
    "changes",
    [
        {"integer": 2**41}, {"integer": 3}, {"text": "UPPER"}, {"amount": "much"}, {"blob": b"x" * 1001},
        {"color": "blue"}, {"size": 3}, {"kind": "c"}, {"tags": ["a"] * 4}, {"tags": [1]}, {"tags": ["\x00"]},
        {"numbers": {"x": 1.0}}, {"address": {"zip": "1"}}, {"address": None}, {"moment": datetime.datetime(1, 1, 1)},
        {"amount": "1e"}, {"note": "\udfff"},
        {"moment": datetime.datetime.min.replace(tzinfo=EAST)}, {"moment": datetime.datetime.max.replace(tzinfo=WEST)},
        {"numbers": {}}, {"numbers": dict.fromkeys(range(4), 1.0)},
    ],
)  # fmt: skip
async def test_value_of_any_type_is_refused_when_it_does_not_fit(db: Database, changes: dict[str, Any]) -> None:
    """Every kind of column has its error."""
    await make_tables(db, Everything)
    things = Repository(Everything, db)
    with pytest.raises(InvalidValue):
        await things.create(everything(**{"text": "x", **changes}))
    with pytest.raises(InvalidValue):
        await things.create_many([everything(**{"text": "x", **changes})])
    assert await things.count() == 0


async def test_value_is_refused_when_it_is_too_large(users: Repository[User]) -> None:
    """50 MB of text, bytes or document is a 413 before anything is sent."""
    things = Repository(Everything, users.db)
    large = 50 * 1024 * 1024
    attempts: list[Awaitable[object]] = [
        users.create(User(name="a", email="x" * large)),
        things.create(everything(text="x", tags=["y" * large])),
        things.update(uuid4(), {"note": "ü" * (large // 2)}),
    ]
    for attempt in attempts:
        with pytest.raises(ValueTooLarge) as caught:
            await attempt
        assert caught.value.status == 413
        assert len(str(caught.value)) < 200

    class Small(DatabaseModel):
        __tablename__ = "smalls"
        __max_value_bytes__ = 10
        text: str
        raw: bytes = b""

    for small in (Small(text="ü" * 6), Small(text="x", raw=b"x" * 11)):
        with pytest.raises(ValueTooLarge):
            small.dict_for_db()
    assert Small(text="ü" * 5).dict_for_db()["text"] == "ü" * 5


async def test_field_is_refused_when_the_model_has_none_such(users: Repository[User]) -> None:
    """An unknown field in data, filter, order, page or upsert is an error that lists the known ones."""
    for attempt in (
        lambda: users.update(uuid4(), {"nam": "x"}),
        lambda: users.find(nam="x"),
        lambda: users.find(where("nam") == "x"),
        lambda: users.find_by_field("nam", "x"),
        lambda: users.find_by_field("limit", 1),
        lambda: users.list(order_by="nam"),
        lambda: users.page(order_by="-nam"),
        lambda: users.upsert(User(name="x", email="x"), on="nam"),
        lambda: users.count(nam=1),
        lambda: users.exists(**{"name = '' or 1=1 --": 1}),
        lambda: anext(users.stream(order_by="nam")),
    ):
        with pytest.raises(UnknownField, match="known are id, name, email"):
            await attempt()


async def test_filter_is_refused_when_its_value_or_operator_does_not_fit(users: Repository[User]) -> None:
    """Wrong types, operators a field does not have, and negative limits are InvalidValue."""
    for attempt in (
        lambda: users.find(where("age") > "7"),
        lambda: users.find(where("age").like("7%")),
        lambda: users.find(where("name").like(7)),  # type: ignore[arg-type]
        lambda: users.find(where("name").contains("x")),
        lambda: users.find(where("id") == "x"),
        lambda: users.find(where("age").in_([1, None])),
        lambda: users.find("age > 7"),  # type: ignore[arg-type]
        lambda: users.find(Condition("name", "= '' or 1=1 or name =", "x")),  # type: ignore[arg-type]
        lambda: users.find(where("name").in_("ab")),
        lambda: users.find(where("age").in_(None)),  # type: ignore[arg-type]
        lambda: users.find(order_by=None),  # type: ignore[arg-type]
        lambda: users.page(order_by=("age", "name")),  # type: ignore[arg-type]
        lambda: anext(users.stream(batch=-1)),
        lambda: users.upsert(User(name="x", email="x"), on=()),
        lambda: users.update(uuid4(), ["name"]),  # type: ignore[arg-type]
        lambda: users.update(uuid4(), {"age": 1}, expected_updated_at=5),  # type: ignore[arg-type]
        lambda: users.update(uuid4(), {"age": 1}, expected_updated_at=datetime.datetime.now()),  # noqa: DTZ005
        lambda: users.find(where("name") == "\x00"),
        lambda: users.find(where("name").like("\x00")),
        lambda: users.list(-1),
        lambda: users.list(1, -1),
        lambda: users.list("1; drop table users"),  # type: ignore[arg-type]
        lambda: users.page(limit=0),
        lambda: users.page(limit=10_001),
        lambda: users.page(order_by="org_id"),
        lambda: users.update(uuid4(), {}),
        lambda: users.update(uuid4(), {"id": uuid4()}),
        lambda: users.get_many(["x"]),
        lambda: users.create(Org(name="x")),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidValue):
            await attempt()
    with pytest.raises(DatabaseError, match="unique=True"):
        await users.upsert(User(name="x", email="x"), on="age")
    assert await users.count() == 0


async def test_injection_is_plain_text_as_a_value_and_refused_as_a_name(users: Repository[User]) -> None:
    """As a value it is stored and found as it is; as id, field name, order key or place it is refused."""
    for text in OWN:
        kept = await users.create(User(name=text[:50], email=text))
        assert (await users.get(kept.id)).email == text
        assert await users.find(email=text) == [kept]
        assert await users.find(where("email").in_([text, "x"])) == [kept]
        changed = await users.update(kept.id, {"name": text[:50]})
        assert changed.name == kept.name
        await users.find(where("email").like(text.rstrip("\\")))
        attempts: list[Awaitable[object]] = [
            users.get(text),
            users.find_by_field(text, "x"),
            users.list(order_by=text),
            users.update(kept.id, {text: "x"}),
            users.page(after=text),
        ]
        for attempt in attempts:
            with pytest.raises(InvalidValue):
                await attempt
        assert await users.list() == [changed]
        assert await users.delete(kept.id)


async def test_published_injections_are_plain_text_and_no_names(users: Repository[User]) -> None:
    """As a value and in a filter each of sqlmap's is text; as field, order key or place it is refused."""
    assert len(PUBLISHED) > 900
    kept: list[User] = []
    for text in PUBLISHED:
        made = await users.create(User(name=text[:50], email=text))
        assert await users.find(where("name") == text[:50], where("email").in_([text, "x"])) == [made]
        kept.append(made)
        attempts: list[Awaitable[object]] = [
            users.get(text),
            users.find(where(text) == "x"),
            users.exists(**{text: "x"}),
            users.list(order_by=text),
            users.list(order_by=f"-{text}"),
            users.update(made.id, {text: "x"}),
            users.upsert(made, on=text),
            users.page(after=text),
            users.count(age=text),
        ]
        for attempt in attempts:
            with pytest.raises(InvalidValue):
                await attempt
        with pytest.raises(UnknownTable):
            await users.db.select(sql.SQL("select {} from users").format(sql.Identifier(text)))
    assert await users.find() == kept
    assert await users.db.execute(sql.SQL("delete from users where email = any(%s)"), [PUBLISHED]) == len(kept)


async def test_nothing_of_statement_or_value_is_told_to_the_caller(users: Repository[User]) -> None:
    """What reaches a caller names field and constraint, and neither SQL nor values."""
    secret = "s3cret-value"
    await users.create(User(name=secret, email=secret))
    for attempt in (
        lambda: users.create(User(name=secret, email=secret)),
        lambda: users.create(User(name="x", email="x", org_id=uuid4())),
        lambda: users.db.execute(sql.SQL("insert into users (id, name) values (gen_random_uuid(), 's3cret-value')")),
        lambda: users.db.execute(sql.SQL("select 's3cret-value' form users")),
        lambda: users.db.execute(sql.SQL("select s3cret_value from users")),
        lambda: users.create(User(name=secret * 10, email="y")),
        lambda: users.update(uuid4(), {"age": secret}),
    ):
        with pytest.raises(DatabaseError) as caught:
            await attempt()
        told = f"{caught.value} {to_body(caught.value, 'users', None)}".lower()
        assert "s3cret" not in told
        assert "insert" not in told
        assert "select" not in told
        assert len(told) < 500


async def test_missing_table_names_the_remedy(db: Database) -> None:
    """A table that no migration has made is an error that says so."""
    with pytest.raises(UnknownTable, match="cliffracer db migrate"):
        await Repository(User, db).list()


async def test_required_value_is_named_when_another_program_leaves_it_out(users: Repository[User]) -> None:
    """NOT NULL of the table is a 400 with the field."""
    with pytest.raises(NotNullViolation) as caught:
        await users.db.execute(sql.SQL("insert into users (id) values (gen_random_uuid())"))
    assert caught.value.details["field"] == "name"
