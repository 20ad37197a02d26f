"""Tenants of a service: its start, its callers, its migrations."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from cliffracer_db import Database, DatabaseModel, InvalidValue, TenantRequired, as_tenant
from cliffracer_db.catalogue import difference
from cliffracer_db.models import table_of
from psycopg import sql

from cliffracer_core import ServiceConfig
from cliffracer_core.errors import ConfigurationError

from .db_models import make_tables
from .db_tenants import A, B, Note, Notes, WhoCalls


def service(url: str, **section: object) -> Notes:
    return Notes(ServiceConfig("notes", db={"url": url, **section}), plugins={"who": WhoCalls()})


async def test_callers_see_their_tenants_rows(db: Database, postgres_url: str) -> None:
    """The claim `tenant` of the caller's identity is the tenant of its call; without one it is refused."""
    await make_tables(db, Note)
    async with service(postgres_url, pool_max_size=2) as notes:

        async def call(method: str, tenant: object, **arguments: str) -> object:
            headers = {} if tenant is None else {"X-Test-Tenant": str(tenant)}
            return await notes.caller.call("notes", method, arguments, headers=headers)

        await asyncio.gather(*(call("add", tenant, title=f"{n}") for n in range(10) for tenant in (A, B)))
        assert await call("add_two", A, first="x", second="y") == 12
        for tenant, count in ((A, 12), (B, 10)):
            titles = await call("titles", tenant)
            assert isinstance(titles, list)
            assert len(titles) == count
        for method, arguments in (("titles", {}), ("add", {"title": "z"}), ("add_two", {"first": "1", "second": "2"})):
            with pytest.raises(TenantRequired) as caught:
                await call(method, None, **arguments)
            assert caught.value.status == 403
        for bad in ("acme", "list"):
            with pytest.raises(InvalidValue, match="tenant's id"):
                await call("titles", bad)
        with as_tenant(B):
            assert await notes.notes.count() == 10


async def test_repeated_call_gets_its_own_tenants_result(db: Database, postgres_url: str) -> None:
    """Callers of one name, with one key and the same arguments, in two tenants: each has its own effect and result."""
    await make_tables(db, Note)
    async with service(postgres_url) as notes:

        async def add(tenant: UUID) -> object:
            headers = {"X-Test-Tenant": str(tenant)}
            return await notes.caller.call("notes", "add_once", {"title": "x"}, headers=headers, idempotency_key="k")

        of_a, of_b = await add(A), await add(B)
        assert isinstance(of_a, dict)
        assert isinstance(of_b, dict)
        assert (of_a["org_id"], of_b["org_id"]) == (str(A), str(B))
        assert (await add(A), await add(B)) == (of_a, of_b)
        for tenant in (A, B):
            with as_tenant(tenant):
                assert await notes.notes.count() == 1


async def test_start_is_refused_when_a_tenants_table_has_no_policy(db: Database, postgres_url: str) -> None:
    """The service does not start, and says which table and what to do; a missing table is a migration's to make."""
    async with service(postgres_url):
        pass
    await make_tables(db, Note)
    async with service(postgres_url):
        pass
    await db.execute(sql.SQL("drop policy notes_tenant on notes"))
    refused = "table 'notes' does not keep tenants apart: it has no policy 'notes_tenant'.*cliffracer db diff"
    with pytest.raises(ConfigurationError, match=refused):
        await service(postgres_url).start()
    with pytest.raises(ConfigurationError, match="superuser"):
        await service(postgres_url.replace("app:", "postgres:", 1)).start()


async def test_start_looks_at_the_table_that_its_migrations_made(postgres_url: str, tmp_path: Path) -> None:
    """Migrations are applied first; one that forgets the policy stops the start."""
    made = Note.get_create_table_sql()
    (tmp_path / "0001_notes.sql").write_text(made.partition("drop policy")[0])
    section = {"migrations": str(tmp_path), "migrate_on_start": True}
    with pytest.raises(ConfigurationError, match="no policy"):
        await service(postgres_url, **section).start()
    (tmp_path / "0002_policy.sql").write_text("drop policy" + made.partition("drop policy")[2])
    async with service(postgres_url, **section) as notes:
        with as_tenant(A):
            assert await notes.notes.list() == []


async def test_diff_writes_the_policy_that_a_table_lacks(db: Database) -> None:
    """A model that gets `tenant=` later, a policy that was changed or dropped, and what only the database has."""

    class Plain(DatabaseModel):
        __tablename__ = "plains"
        org: str

    class Owned(DatabaseModel, tenant="org"):
        __tablename__ = "plains"
        org: str

    plain, owned = table_of(Plain), table_of(Owned)

    async def applied() -> str:
        text = await difference(db, [owned])
        await db.execute(sql.SQL(text))
        assert await difference(db, [owned]) == ""
        return text

    await make_tables(db, Plain)
    assert await difference(db, [plain]) == ""
    text = await applied()
    for each in ("enable row level", "force row level", "create policy", "create index"):
        assert each in text.lower()
    for change, missing in (
        ("drop policy plains_tenant on plains", "create policy"),
        ("alter policy plains_tenant on plains using (true)", "create policy"),
        ("alter table plains no force row level security", "force row level"),
        ("alter table plains disable row level security", "enable row level"),
        ("drop policy plains_tenant on plains; create policy plains_tenant on plains as restrictive using (true)",
         "create policy"),
    ):  # fmt: skip
        await db.execute(sql.SQL(change))
        assert missing in await applied()
    await db.execute(sql.SQL("create policy more on plains using (true)"))
    assert await difference(db, [owned]) == (
        '-- only the database has policy "more" of "plains"; a permissive one adds to what a tenant sees\n'
    )
    told = await difference(db, [plain])
    assert '-- only the database has row-level security on "plains"' in told
    assert '-- only the database has policy "plains_tenant"' in told
