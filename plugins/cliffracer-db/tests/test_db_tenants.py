"""Rows that belong to tenants: nobody sees, changes or makes another's, whatever goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from cliffracer_db import (
    Database,
    DatabaseModel,
    DbSettings,
    InvalidValue,
    RecordNotFound,
    Repository,
    SecureRepository,
    TenantRequired,
    UniqueViolation,
    WrongTenant,
    as_tenant,
    current_tenant,
    tenant_field,
)
from cliffracer_db.models import table_of
from msgspec.structs import replace
from psycopg import sql

from cliffracer_core.context import leave_calls
from cliffracer_core.errors import ConfigurationError

from .db_models import make_tables
from .db_tenants import A, B, Counter, Label, Note

SETTING = sql.SQL("select coalesce(current_setting('cliffracer.tenant', true), '') as tenant")
ALL = sql.SQL("select title from notes order by title")


@pytest.fixture
async def notes(db: Database) -> Repository[Note]:
    await make_tables(db, Note)
    leave_calls()
    return Repository(Note, db)


async def titles(notes: Repository[Note]) -> list[str]:
    return [each.title for each in await notes.list(order_by="title")]


async def test_each_tenant_has_its_rows_alone(notes: Repository[Note]) -> None:
    """Every method reads and changes the tenant's own rows; of another's there is no sign."""
    with as_tenant(A):
        first = await notes.create(Note(title="a1"))
        assert first.org_id == A
        assert await notes.create_many(Note(title=f"a{n}") for n in range(2, 6)) == 4
    with as_tenant(B):
        mine = await notes.create(Note(title="b1"))
        assert await titles(notes) == ["b1"]
        assert await notes.get_many([first.id, mine.id]) == [mine]
        assert await notes.find(title="a1") == []
        assert (await notes.page()).items == [mine]
        assert [each async for each in notes.stream()] == [mine]
        assert (await notes.count(), await notes.exists(id=first.id)) == (1, False)
        assert await notes.delete(first.id) is False
        attempts: list[Awaitable[object]] = [
            notes.get(first.id),
            notes.update(first.id, {"title": "x"}),
            notes.update(first.id, {"title": "x"}, expected_updated_at=first.updated_at),
        ]
        for attempt in attempts:
            with pytest.raises(RecordNotFound):
                await attempt
        assert await notes.db.select(ALL) == [{"title": "b1"}]
        assert await notes.db.execute(sql.SQL("update notes set body = 'mine'")) == 1
        assert await notes.db.execute(sql.SQL("delete from notes")) == 1
    with as_tenant(A):
        assert await notes.get(first.id) == first
        assert await titles(notes) == ["a1", "a2", "a3", "a4", "a5"]


async def test_nothing_is_read_or_written_when_no_tenant_is_set(notes: Repository[Note]) -> None:
    """A repository raises TenantRequired (403); a statement written by hand sees no row and writes none."""
    with as_tenant(A):
        kept = await notes.create(Note(title="a"))
    attempts: list[Callable[[], Awaitable[object]]] = [
        notes.list,
        lambda: notes.get(kept.id),
        lambda: notes.create(kept),
        lambda: notes.create_many([kept]),
        lambda: notes.upsert(kept),
        lambda: notes.update(kept.id, {"title": "x"}),
        lambda: notes.delete(kept.id),
        notes.count,
        notes.exists,
        notes.page,
        lambda: anext(notes.stream()),
    ]
    for attempt in attempts:
        with pytest.raises(TenantRequired, match="as_tenant") as caught:
            await attempt()
        assert caught.value.status == 403
    with pytest.raises(TenantRequired):
        Note(title="whose?")
    insert = sql.SQL("insert into notes select (r).* from (select %s::notes r) s")
    assert await notes.db.select(ALL) == []
    assert await notes.db.execute(sql.SQL("update notes set title = 'x'")) == 0
    assert await notes.db.execute(sql.SQL("delete from notes")) == 0
    with pytest.raises(WrongTenant):
        await notes.db.execute(insert, [f'({kept.id},x,"",{A},2026-01-01,2026-01-01)'])
    with as_tenant(A):
        assert await titles(notes) == ["a"]


async def test_row_of_another_tenant_is_refused_when_it_is_forged(notes: Repository[Note]) -> None:
    """Neither a model, nor a change, nor a parameter of a statement written by hand makes or takes another's row."""
    with as_tenant(B):
        other = await notes.create(Note(title="b"))
    with as_tenant(A):
        mine = await notes.create(Note(title="a"))
        forged = Note(title="x", org_id=B)
        for refused in (notes.create(forged), notes.create_many([Note(title="y"), forged]), notes.upsert(forged)):
            with pytest.raises(WrongTenant) as caught:
                await refused
            assert (caught.value.status, caught.value.details["field"]) == (403, "org_id")
        attempts: list[Awaitable[object]] = [
            notes.upsert(Note(id=other.id, title="x")),  # the id is of a row that is not this tenant's
            notes.db.execute(sql.SQL("update notes set org_id = %s"), [B]),
        ]
        for attempt in attempts:
            with pytest.raises(WrongTenant) as caught:
                await attempt
            assert caught.value.status == 403
        with pytest.raises(InvalidValue, match="leave it out"):
            await notes.update(mine.id, {"org_id": B})
        with pytest.raises(UniqueViolation):
            await notes.create(Note(id=other.id, title="x"))
        assert await notes.find(org_id=B) == []
        assert await notes.db.select(sql.SQL("select 1 from notes where org_id = %s or true"), [B]) != []
        assert await notes.db.select(sql.SQL("select title from notes where org_id = %s"), [B]) == []
    for text in ("' or true --", f"{B}' or org_id = '{B}", "'; reset cliffracer.tenant; --"):
        with as_tenant(text), pytest.raises(InvalidValue, match="no UUID"):
            await notes.list()
    with as_tenant(B):
        assert await notes.list() == [other]


async def test_tenants_stay_apart_when_they_share_one_connection(postgres_url: str) -> None:
    """Calls of two tenants and of none, in turn on one connection: each sees its own, which leaves nothing behind."""
    async with Database(DbSettings(url=postgres_url, pool_max_size=1)) as db:
        await make_tables(db, Note)
        notes = Repository(Note, db)

        async def work(tenant: UUID, number: int) -> None:
            with as_tenant(tenant):
                made = await notes.create(Note(title=f"{number}"))
                assert await asyncio.gather(*(notes.get(made.id) for _ in range(3))) == [made] * 3
                if number % 5 == 0:
                    async with db.transaction():
                        assert {each.org_id for each in await notes.list()} == {tenant}
                async for each in notes.stream(batch=2):
                    assert each.org_id == tenant
                rows = await db.select(sql.SQL("select org_id from notes"))
                assert {row["org_id"] for row in rows} == {tenant}

        async def nobody() -> None:
            assert await db.select(ALL) == []
            assert await db.select(SETTING) == [{"tenant": ""}]

        await asyncio.gather(*(work(each, n) for n in range(20) for each in (A, B)), *(nobody() for _ in range(40)))
        for tenant in (A, B):
            with as_tenant(tenant):
                assert await notes.count() == 20


async def test_connection_keeps_no_tenant_when_its_task_was_cancelled(postgres_url: str) -> None:
    """Cancelled at any point of a tenant's call, again and again: the next call on the connection is nobody's."""
    async with Database(DbSettings(url=postgres_url, pool_max_size=1, pgbouncer=True)) as db:
        await make_tables(db, Note)
        notes = Repository(Note, db)

        async def of_a(number: int) -> None:
            with as_tenant(A):
                if number % 3 == 0:
                    await db.execute(sql.SQL("select pg_sleep(30)"))
                async with db.transaction() if number % 2 else contextlib.nullcontext():
                    await notes.create(Note(title=f"{number}"))
                    await notes.create_many([Note(title=f"{number}-{n}") for n in range(3)])

        for number in range(120):
            task = asyncio.create_task(of_a(number))
            for _ in range(number % 40):
                await asyncio.sleep(0)
            if number % 5 == 0:
                await asyncio.sleep(0.003)
            task.cancel()
            await asyncio.wait({task})
            assert await db.select(ALL) == []
            assert await db.select(SETTING) == [{"tenant": ""}]
            with as_tenant(B):
                assert await notes.list() == []


async def test_transaction_belongs_to_one_tenant(notes: Repository[Note]) -> None:
    """The first tenant's; it stays so after an inner one was undone, and another tenant is refused."""
    db = notes.db
    async with db.transaction():
        assert await db.select(ALL) == []
        async with as_tenant(A):
            with contextlib.suppress(KeyError):
                async with db.transaction():
                    await notes.create(Note(title="undone"))
                    raise KeyError
            await notes.create(Note(title="a"))
            assert await titles(notes) == ["a"]
        for attempt in (notes.count, lambda: db.select(ALL)):
            with as_tenant(B), pytest.raises(WrongTenant, match="one tenant"):
                await attempt()
        with as_tenant(A):
            results = await asyncio.gather(*(notes.create(Note(title=f"{n}")) for n in range(5)))
        assert {each.org_id for each in results} == {A}
    async with db.transaction(isolation="serializable", read_only=True):
        assert await db.select(ALL) == []
    with as_tenant(B):
        async with db.transaction(isolation="serializable"):
            assert await notes.count() == 0
    with as_tenant(A):
        assert await notes.count() == 6
    with as_tenant(A), pytest.raises(UniqueViolation):
        async with db.transaction():
            await notes.create_many([Note(title="z"), Note(title="a")])
    with as_tenant(A):
        assert not await notes.exists(title="z")


async def test_unique_is_so_for_one_tenant(notes: Repository[Note]) -> None:
    """Two tenants have rows of the same unique value, and learn nothing of each other's; `upsert` finds its own."""
    for tenant in (A, B):
        with as_tenant(tenant):
            made = await notes.create(Note(title="same"))
            with pytest.raises(UniqueViolation) as caught:
                await notes.create(Note(title="same"))
            assert caught.value.details["field"] == "title"
            changed = await notes.upsert(Note(title="same", body=f"{tenant}"), on="title")
            assert (changed.id, changed.body) == (made.id, f"{tenant}")
            assert await notes.upsert(replace(changed, body="again"), on="id") != changed
    with as_tenant(A):
        assert [each.org_id for each in await notes.list()] == [A]


async def test_tenant_is_a_text_or_a_number_where_the_field_is(db: Database) -> None:
    """Fields of str and int are tenants, too, of a repository that trusts nobody as well."""
    await make_tables(db, Label, Counter)
    labels, counters = SecureRepository(Label, db, writable=["text"]), Repository(Counter, db)
    for tenant in (7, 8):
        with as_tenant(tenant):
            await counters.create(Counter(number=tenant * 10))
            await labels.create(Label(text=f"of {tenant}"))
    with as_tenant(8):
        assert [each.number for each in await counters.list()] == [80]
        assert [each.text for each in await labels.list()] == ["of 8"]
    with as_tenant("acme"), pytest.raises(InvalidValue, match="no int"):
        await counters.list()
    for bad in ("", "x" * 256, "a\x00", "a\nb", True, 1.5, None):
        with pytest.raises(InvalidValue, match="tenant's id"):
            as_tenant(bad)  # type: ignore[arg-type]
    assert current_tenant() is None


RULE = "org_id = (select nullif(current_setting('cliffracer.tenant', true), '')::uuid)"


FLAWS = (
    ("drop policy notes_tenant on notes; alter table notes disable row level security", "security is off"),
    ("drop policy notes_tenant on notes", "no policy 'notes_tenant'"),
    ("alter table notes no force row level security", "not forced"),
    ("create policy more on notes using (title like 'public%')", "permissive policy beside"),
    ("create policy more on notes for select to app using (true)", "permissive policy beside"),
    ("alter policy notes_tenant on notes using (true)", "permissive policy beside"),
    ("alter policy notes_tenant on notes with check (true)", "permissive policy beside"),
    (f"alter policy notes_tenant on notes using ({RULE.replace('=', '<>', 1)})", "permissive policy beside"),
    (f"drop policy notes_tenant on notes; create policy notes_tenant on notes for select using ({RULE})",
     "no policy 'notes_tenant'"),
)  # fmt: skip


async def test_table_is_refused_when_it_does_not_keep_tenants_apart(db: Database) -> None:
    """A repository looks before its first statement, and says what is wrong."""
    for change, reason in FLAWS:
        await make_tables(db, Note)
        await db.execute(sql.SQL(change))
        notes = Repository(Note, db)
        with as_tenant(A):
            for attempt in (notes.list, lambda: notes.create(Note(title="x")), notes.verify_tenants):  # noqa: B023
                with pytest.raises(ConfigurationError, match=f"'notes' does not keep tenants apart: .*{reason}"):
                    await attempt()
        await db.execute(sql.SQL("drop table notes"))


async def test_table_is_accepted_when_what_is_added_only_takes_away(db: Database) -> None:
    """Restrictive policies, and those of other roles, are no danger."""
    await make_tables(db, Note)
    await db.execute(sql.SQL("create policy less on notes as restrictive using (title <> 'hidden')"))
    await db.execute(sql.SQL("create policy theirs on notes to pg_monitor using (true)"))
    notes = Repository(Note, db)
    with as_tenant(A):
        await notes.create(Note(title="shown"))
        assert await titles(notes) == ["shown"]


@pytest.mark.parametrize("role", ["superuser", "bypassrls"])
async def test_table_is_refused_when_no_policy_binds_the_role(
    db: Database, postgres_server: Any, postgres_url: str, role: str
) -> None:
    """A superuser, or a role with BYPASSRLS, would see every tenant's rows."""
    await make_tables(db, Note)
    url = postgres_url.replace("app:", "postgres:", 1)
    if role == "bypassrls":
        name = f"bypasses_{postgres_url.rpartition('/')[2]}"
        async with Database(url) as admin:
            await admin.execute(
                sql.SQL("create role {} login bypassrls password {}").format(
                    sql.Identifier(name), sql.Literal(postgres_server.password)
                )
            )
            await admin.execute(sql.SQL("grant all on notes to {}").format(sql.Identifier(name)))
        url = postgres_url.replace("app:", f"{name}:", 1)
    async with Database(url) as bypassing:
        with as_tenant(A), pytest.raises(ConfigurationError, match="superuser, or has BYPASSRLS"):
            await Repository(Note, bypassing).list()
    if role == "bypassrls":
        async with Database(postgres_url.replace("app:", "postgres:", 1)) as admin:
            await admin.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))


def test_model_is_refused_when_its_tenant_cannot_be_one() -> None:
    """The field is one of the model's own, a str, int or UUID, and never None."""

    class Missing(DatabaseModel, tenant="org"):
        __tablename__ = "missing"

    class Id(DatabaseModel, tenant="id"):
        __tablename__ = "ids"

    class Maybe(DatabaseModel, tenant="org"):
        __tablename__ = "maybes"
        org: str | None = None

    class Real(DatabaseModel, tenant="org"):
        __tablename__ = "reals"
        org: float

    for model in (Missing, Id, Maybe, Real):
        with pytest.raises(ConfigurationError, match=f"model {model.__name__!r}"):
            table_of(model)

    class Sub(Note):
        __tablename__ = "subs"
        more: str = ""

    tenant = table_of(Sub).tenant
    assert tenant is not None
    assert tenant.name == "org_id"
    assert tenant_field(str) is not None
