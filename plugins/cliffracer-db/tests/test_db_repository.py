from __future__ import annotations

import asyncio
import contextlib
import datetime
from uuid import uuid4

import pytest
from cliffracer_db import (
    Database,
    ForeignKeyViolation,
    InvalidValue,
    RecordNotFound,
    Repository,
    StaleRecord,
    UniqueViolation,
    any_of,
    where,
)
from psycopg import sql

from cliffracer_core.errors import DatabaseError
from cliffracer_core.testing import eventually

from .db_models import Everything, Org, User, make_tables
from .test_db_models import everything


@pytest.fixture
async def users(db: Database) -> Repository[User]:
    await make_tables(db, Org, User)
    return Repository(User, db)


def user(number: int = 0, **changes: object) -> User:
    return User(**{"name": f"user {number}", "email": f"{number}@example.com", "age": number, **changes})  # type: ignore[arg-type]


async def filled(users: Repository[User], count: int) -> list[User]:
    models = [user(number) for number in range(count)]
    assert await users.create_many(models) == count
    return models


async def test_row_is_read_when_it_was_created(users: Repository[User]) -> None:
    """`create` returns the model as stored; `get` takes the id as a UUID or as text."""
    made = await users.create(user(1))
    assert await users.get(made.id) == made
    assert await users.get(str(made.id)) == made


async def test_get_raises_when_there_is_no_row(users: Repository[User]) -> None:
    """No row is a 404 that names the table; an id that is none is a 400."""
    with pytest.raises(RecordNotFound, match="users") as caught:
        await users.get(uuid4())
    assert caught.value.status == 404
    with pytest.raises(InvalidValue) as refused:
        await users.get("1; drop table users")
    assert refused.value.status == 400


async def test_get_many_gives_what_exists_in_the_order_asked(users: Repository[User]) -> None:
    """Each once, in the order of the ids; missing ones are left out."""
    one, two, three = await filled(users, 3)
    found = await users.get_many([three.id, uuid4(), str(one.id), three.id])
    assert found == [three, one]
    assert await users.get_many([]) == []
    assert two not in found


async def test_update_changes_only_the_fields_given(users: Repository[User]) -> None:
    """Other fields, id and `created_at` stay; `updated_at` grows with every update, however fast they follow."""
    made = await users.create(user(1))
    seen = [made.updated_at]
    for age in range(20):
        changed = await users.update(made.id, {"age": age})
        assert (changed.age, changed.name, changed.created_at) == (age, made.name, made.created_at)
        seen.append(changed.updated_at)
    assert seen == sorted(set(seen))
    assert await users.get(made.id) == changed
    with pytest.raises(RecordNotFound):
        await users.update(uuid4(), {"age": 1})


async def test_update_is_refused_when_the_row_has_changed_meanwhile(users: Repository[User]) -> None:
    """Of concurrent updates that expect the same row one wins, the others get StaleRecord (409)."""
    made = await users.create(user(1))
    results = await asyncio.gather(
        *(users.update(made.id, {"age": age}, expected_updated_at=made.updated_at) for age in range(2, 8)),
        return_exceptions=True,
    )
    (won,) = [each for each in results if isinstance(each, User)]
    lost = [each for each in results if isinstance(each, StaleRecord)]
    assert len(lost) == 5
    assert lost[0].status == 409
    assert await users.get(made.id) == won
    with pytest.raises(RecordNotFound):
        await users.update(uuid4(), {"age": 1}, expected_updated_at=made.updated_at)


async def test_updated_at_grows_when_the_clocks_differ(users: Repository[User]) -> None:
    """A row stamped by a machine whose clock is ahead still gets a later time."""
    ahead = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    made = await users.create(user(1, updated_at=ahead))
    assert (await users.update(made.id, {"age": 2})).updated_at > ahead


async def test_upsert_writes_or_changes(users: Repository[User]) -> None:
    """A new value is inserted; a known one is changed and keeps id and `created_at`."""
    made = await users.upsert(user(1), on="email")
    changed = await users.upsert(user(1, name="other"), on="email")
    assert (changed.id, changed.created_at, changed.name) == (made.id, made.created_at, "other")
    assert changed.updated_at > made.updated_at
    assert (await users.upsert(User(id=made.id, name="by id", email="1@example.com"))).name == "by id"
    assert await users.count() == 1


async def test_delete_says_whether_there_was_a_row(users: Repository[User]) -> None:
    """True once, then False."""
    made = await users.create(user(1))
    assert await users.delete(made.id) is True
    assert await users.delete(made.id) is False


async def test_create_many_writes_all_or_nothing(users: Repository[User]) -> None:
    """One bad row, in Python or in the table, and none is written."""
    with pytest.raises(UniqueViolation) as caught:
        await users.create_many([*(user(number) for number in range(500)), user(7)])
    assert caught.value.details == {"table": "users", "field": "email", "constraint": "users_email_key"}
    with pytest.raises(InvalidValue):
        await users.create_many([user(1), user(2, age=-1)])
    assert await users.count() == 0
    assert await users.create_many([]) == 0


async def test_create_many_leaves_its_transaction_usable_when_a_row_is_refused(users: Repository[User]) -> None:
    """In a transaction a refused batch is undone alone, also where the bad row comes after thousands."""
    bad = [*(user(number) for number in range(7000)), user(7001, name="")]
    async with users.db.transaction():
        await users.create(user(9000))
        with pytest.raises(InvalidValue):
            await users.create_many(bad)
        with pytest.raises(UniqueViolation):
            await users.create_many([user(1), user(1)])
        await users.create_many([user(2)])
    assert [each.age for each in await users.list(order_by="age")] == [2, 9000]
    with pytest.raises(InvalidValue):
        await users.create_many(bad)
    assert await users.count() == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""}, {"name": "x" * 51}, {"name": None}, {"name": 5}, {"name": "a\x00"}, {"email": "\ud800"},
        {"email": b"x"}, {"age": True}, {"age": -1}, {"age": 10_001}, {"age": None}, {"age": 1.0}, {"org_id": "x"},
        {"created_at": datetime.datetime(2026, 1, 1)}, {"created_at": datetime.date(2026, 1, 1)}, {"id": None},
        {"email": "x" * (16 * 1024 * 1024 + 1)},
        {"created_at": datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1)))},
    ],
)  # fmt: skip
async def test_create_many_refuses_what_create_refuses(users: Repository[User], changes: dict[str, object]) -> None:
    """One bad value among good rows is found, and has the same error."""
    bad = user(50, **changes)
    with pytest.raises(InvalidValue) as alone:
        await users.create(bad)
    with pytest.raises(InvalidValue) as among:
        await users.create_many([user(1), user(2, org_id=None), bad, user(3)])
    assert (type(among.value), str(among.value)) == (type(alone.value), str(alone.value))
    assert await users.count() == 0


async def test_create_many_takes_a_generator_of_any_length(users: Repository[User]) -> None:
    """Rows are written as they come, None and text of any script included."""
    assert await users.create_many(user(n, name=f"Grüße 🌍 {n}") for n in range(10_001)) == 10_001
    assert await users.count(where("name").like("Grüße 🌍%")) == 10_001


async def test_list_is_in_the_order_of_making(users: Repository[User]) -> None:
    """Limit and offset cut it; the oldest is first; an order may be asked for."""
    models = await filled(users, 10)
    assert await users.list() == models
    assert await users.list(3, 2) == models[2:5]
    assert await users.list(2, order_by="-age") == models[:-3:-1]


async def test_find_gives_the_rows_for_which_all_conditions_hold(users: Repository[User]) -> None:
    """Every operator, `any_of`, equality by keyword, None, several orders."""
    models = await filled(users, 10)
    special = await users.create(user(50, name="50%_done"))

    async def ages(*conditions: object, **equal: object) -> list[int]:
        return [each.age for each in await users.find(*conditions, order_by="age", **equal)]  # type: ignore[arg-type]

    assert await ages(where("age") >= 8) == [8, 9, 50]
    assert await ages(where("age") > 8, where("age") < 10) == [9]
    assert await ages(where("age") <= 1) == [0, 1]
    assert await ages(where("age") != 0, where("age") < 3) == [1, 2]
    assert await ages(where("age").in_([3, 1, 99])) == [1, 3]
    assert await ages(where("age").in_([])) == []
    assert await ages(where("id").in_([models[4].id])) == [4]
    assert await ages(where("name").like("user _")) == list(range(10))
    assert await ages(where("name").ilike("USER 3")) == [3]
    assert await ages(any_of(where("age") == 2, where("name") == "user 3"), where("age") > 0) == [2, 3]
    assert await ages(name="50%_done") == [50]
    assert await ages(org_id=None, age=1) == [1]
    assert await ages(where("org_id") != None) == []  # noqa: E711  # a condition
    assert await ages(where("created_at") > special.created_at) == []
    assert await users.find_by_field("email", "3@example.com") == [models[3]]
    assert [each.age for each in await users.find(order_by=("-org_id", "-age"), limit=2, offset=1)] == [9, 8]


async def test_find_reads_documents_and_enums(db: Database) -> None:
    """Enums compare by their value, documents by what they hold."""
    await make_tables(db, Everything)
    things = Repository(Everything, db)
    one = await things.create(everything(text="a"))
    assert await things.find(where("color") == one.color, where("size").in_([one.size]), kind="b") == [one]
    assert await things.find(where("address").contains({"zip": "8000"})) == [one]
    assert await things.find(where("tags").contains(["z"])) == []
    assert await things.find(where("amount") == one.amount, where("blob") == one.blob, where("day") == one.day) == [one]


@pytest.mark.parametrize("order", ["id", "-id", "age", "-name", "created_at", "-email"])
async def test_pages_hold_each_row_once_when_rows_come_and_go(users: Repository[User], order: str) -> None:
    """Following `next` gives each row once, in order, also while others are written and ties exist."""
    models = [user(number, name=f"{number % 3}", age=number % 5) for number in range(25)]
    await users.create_many(models)
    seen, after, extra = [], None, 100
    while True:
        page = await users.page(where("age") < 100, after=after, limit=4, order_by=order)
        assert len(page.items) <= 4
        seen += [each for each in page.items if each.email in {model.email for model in models}]
        if page.next is None:
            break
        after, extra = page.next, extra + 1
        await users.create(user(extra, age=99, name="zzz"))
        with contextlib.suppress(IndexError):
            await users.delete(seen[0].id)
    key = order.removeprefix("-")
    assert len(seen) == len({each.id for each in seen}) == 25
    assert seen == sorted(seen, key=lambda each: (getattr(each, key), each.id), reverse=order.startswith("-"))


@pytest.mark.parametrize("after", ["", "x", "äö", "eyJ9", "W10", "WyJpZCIsMSwyXQ", "' or 1=1 --"])
async def test_page_is_refused_when_its_place_is_none(users: Repository[User], after: str) -> None:
    """A place that was tampered with, or belongs to another order, is an InvalidValue."""
    await filled(users, 3)
    with pytest.raises(InvalidValue):
        await users.page(after=after)
    with pytest.raises(InvalidValue):
        await users.page(after=(await users.page(limit=1, order_by="age")).next, order_by="name")


async def test_stream_yields_every_row_and_gives_its_connection_back(users: Repository[User]) -> None:
    """All rows in order; one left early, in or out of a transaction, keeps no connection."""
    models = await filled(users, 250)
    assert [each async for each in users.stream(batch=100)] == models
    assert [each.age async for each in users.stream(where("age") >= 248, order_by="-age")] == [249, 248]
    before = users.db.statistics()["pool_available"]
    async with contextlib.aclosing(users.stream(batch=10)) as rows:
        async for _ in rows:
            assert not users.db.in_transaction
            await users.count()
            break
    assert users.db.statistics()["pool_available"] >= before
    async with users.db.transaction():
        assert len([each async for each in users.stream()]) == 250
        async for each in users.stream(batch=10):  # left early, without aclosing, and the transaction goes on
            await users.delete(each.id)
            break
        one, other = users.stream(batch=10), users.stream(batch=10)
        assert await anext(one) == await anext(other) == models[1]
        await one.aclose()
        with contextlib.suppress(KeyError):
            async with users.db.transaction():
                inner = users.stream(batch=10)
                await anext(inner)
                raise KeyError
        await inner.aclose()
        left = users.stream(batch=1)
        await anext(left)
    assert await users.count() == 249
    with pytest.raises(DatabaseError, match="has ended"):
        await anext(left)
    await other.aclose()


async def test_stream_gives_its_connection_back_when_its_reader_is_cancelled(users: Repository[User]) -> None:
    """Cancelled half way, while it waits or while it fetches, again and again: nothing of it is left."""
    await filled(users, 300)
    for turn in range(12):
        half = asyncio.Event()

        async def read(half: asyncio.Event = half) -> None:
            seen = 0
            async for _ in users.stream(batch=20):
                seen += 1
                if seen == 150:
                    half.set()

        task = asyncio.create_task(read())
        await half.wait()
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    cursors = "select 1 from pg_stat_activity where datname = current_database() and state like 'idle in transaction%%'"

    async def none_left() -> bool:
        figures = users.db.statistics()
        back = figures["pool_available"] == figures["pool_size"]
        return back and await users.db.select(sql.SQL(cursors), []) == []

    await eventually(none_left)


async def test_pages_go_past_what_is_no_number(db: Database) -> None:
    """Rows ordered by a float that is infinite or NaN are on pages as any other."""
    await make_tables(db, Everything)
    things = Repository(Everything, db)
    reals = [float("-inf"), -1.5, 0.1, float("inf"), float("nan")]
    await things.create_many(everything(text="x", real=each) for each in reals)
    page = await things.page(limit=1, order_by="real")
    seen = [each.real for each in page.items]
    while page.next:
        page = await things.page(limit=1, order_by="real", after=page.next)
        seen += [each.real for each in page.items]
    assert [str(each) for each in seen] == [str(each) for each in reals]


async def test_count_and_exists_take_conditions(users: Repository[User]) -> None:
    """Both count what `find` finds."""
    await filled(users, 10)
    assert await users.count() == 10
    assert await users.count(where("age") > 6) == 3
    assert await users.exists(name="user 3") is True
    assert await users.exists(where("age") > 100) is False


async def test_row_is_refused_when_it_refers_to_none(db: Database, users: Repository[User]) -> None:
    """A reference to no row, and the removal of one that is referred to, are 409 with the field named."""
    orgs = Repository(Org, db)
    with pytest.raises(ForeignKeyViolation) as caught:
        await users.create(user(1, org_id=uuid4()))
    assert (caught.value.details["field"], caught.value.status) == ("org_id", 409)
    org = await orgs.create(Org(name="acme"))
    await users.create(user(1, org_id=org.id))
    with pytest.raises(ForeignKeyViolation):
        await orgs.delete(org.id)


async def test_repositories_share_a_pool_when_their_settings_are_the_same(db: Database) -> None:
    """One pool for each database of a process, closed with its last user."""
    assert db.settings is not None
    async with Database(db.settings) as other:
        assert other.pool is db.pool
    await db.ping()
    pool = db.pool
    await db.close()
    assert pool.closed
