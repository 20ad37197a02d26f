"""Over HTTP: what callers send and what becomes of the database, as they see it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import msgspec
from cliffracer_db import Column, Database, DatabaseModel, EmbeddedPostgres, Repository, as_tenant
from cliffracer_http import delete, get, patch, post
from msgspec import Meta
from psycopg import sql

from cliffracer_core import CliffracerService, ServiceConfig
from cliffracer_core.testing import eventually, unique

from .db_models import make_tables
from .db_tenants import Note

SECRET = "s3cret-value"


class Shelf(DatabaseModel):
    __tablename__ = "shelves"

    name: str


class Item(DatabaseModel):
    __tablename__ = "items"

    name: Annotated[str, Meta(min_length=1, max_length=50)]
    code: Annotated[str, Column(unique=True)]
    quantity: Annotated[int, Meta(ge=0)] = 0
    shelf_id: Annotated[UUID | None, Column(references="shelves.id")] = None
    note: str = ""


class Absent(DatabaseModel):
    __tablename__ = "absents"


class Items(CliffracerService):
    name = "items"
    db = Database()
    items = Repository(Item)
    shelves = Repository(Shelf)
    absents = Repository(Absent)
    notes = Repository(Note)
    holding: asyncio.Event

    @post("/items", status_code=201)
    async def make(self, body: dict[str, Any]) -> Item:
        fields = {"name": "", "code": "", **body}
        return await self.items.create(Item(**fields))

    @post("/bulk", status_code=201)
    async def make_many(self, body: list[dict[str, Any]]) -> int:
        return await self.items.create_many(Item(**each) for each in body)

    @post("/raw", status_code=201)
    async def make_raw(self, body: dict[str, Any]) -> int:
        fields = {"id": uuid4(), **body}
        columns = sql.SQL(", ").join(map(sql.Identifier, fields))
        values = sql.SQL(", ").join([sql.Placeholder()] * len(fields))
        statement = sql.SQL("insert into items ({}) values ({})").format(columns, values)
        return await self.db.execute(statement, list(fields.values()))

    @get("/items")
    async def find(self, field: str = "code", value: str = "", order_by: str = "id") -> list[Item]:
        if value:
            return await self.items.find_by_field(field, value)
        return await self.items.list(order_by=order_by)

    @get("/items/{id}")
    async def one(self, id: str) -> Item:
        return await self.items.get(id)

    @patch("/items/{id}")
    async def change(self, id: str, body: dict[str, Any]) -> Item:
        return await self.items.update(id, body)

    @delete("/shelves/{id}")
    async def drop(self, id: str) -> bool:
        return await self.shelves.delete(id)

    @get("/absent")
    async def absent(self) -> list[Absent]:
        return await self.absents.list()

    @get("/notes")
    async def tenants_notes(self, tenant: str = "") -> list[Note]:
        with as_tenant(tenant) if tenant else contextlib.nullcontext():
            return await self.notes.list()

    @get("/wrong")
    async def wrong(self) -> int:
        return await self.db.execute(sql.SQL(f"select '{SECRET}' form items"))

    @post("/hold")
    async def hold(self, body: dict[str, Any]) -> int:
        async with self.db.transaction():
            await self.items.create(Item(name="held", code="held"))
            self.holding.set()
            return await self.db.execute(sql.SQL("select pg_sleep(30)"))


@contextlib.asynccontextmanager
async def running(url: str, **section: Any) -> AsyncIterator[tuple[Items, httpx.AsyncClient]]:
    http = {"port": 0, "server": "uvicorn", "max_body_bytes": 64 * 1024 * 1024}
    service: Any = Items(ServiceConfig(unique(), http=http, db={"url": url, **section}))
    async with service:
        service.holding = asyncio.Event()
        async with httpx.AsyncClient(base_url=service.http.url, timeout=30) as client:
            yield service, client


async def test_what_the_database_refuses_is_a_problem_that_names_the_field(db: Database, postgres_url: str) -> None:
    """Each bad input has its status, code and field; nothing is written, and neither SQL nor a value is told."""
    await make_tables(db, Shelf, Item, Note)
    async with running(postgres_url) as (service, client):
        shelf = await service.shelves.create(Shelf(name="a"))
        kept = await service.items.create(Item(name=SECRET, code=SECRET, shelf_id=shelf.id))
        good = {"name": SECRET, "code": f"{SECRET}2"}
        item = f"/items/{kept.id}"
        cases: list[tuple[str, str, Any, int, str, dict[str, str]]] = [
            ("PATCH", item, {SECRET: "x"}, 400, "unknown_field", {"table": "items"}),
            ("GET", f"/items?field={SECRET}&value=x", None, 400, "unknown_field", {"table": "items"}),
            ("GET", f"/items?order_by={SECRET}", None, 400, "unknown_field", {"table": "items"}),
            ("GET", "/absent", None, 500, "unknown_table", {}),
            ("GET", "/wrong", None, 500, "database_error", {}),
            ("POST", "/items", {**good, "name": 5}, 400, "invalid_value", {"field": "name"}),
            ("POST", "/items", {**good, "quantity": SECRET}, 400, "invalid_value", {"field": "quantity"}),
            ("PATCH", item, {"quantity": SECRET}, 400, "invalid_value", {"field": "quantity"}),
            ("POST", "/items", {"code": SECRET}, 400, "invalid_value", {"field": "name"}),
            ("POST", "/raw", {"code": SECRET}, 400, "not_null_violation", {"field": "name", "table": "items"}),
            ("POST", "/items", {**good, "code": SECRET}, 409, "unique_violation",
             {"field": "code", "constraint": "items_code_key", "table": "items"}),
            ("POST", "/bulk", [good, {**good, "code": SECRET}], 409, "unique_violation",
             {"field": "code", "constraint": "items_code_key"}),
            ("POST", "/items", {**good, "shelf_id": str(uuid4())}, 409, "foreign_key_violation",
             {"field": "shelf_id", "constraint": "items_shelf_id_fkey", "table": "items"}),
            ("DELETE", f"/shelves/{shelf.id}", None, 409, "foreign_key_violation",
             {"constraint": "items_shelf_id_fkey"}),
            ("POST", "/items", {**good, "name": SECRET * 5}, 400, "invalid_value", {"field": "name"}),
            ("POST", "/raw", {**good, "name": SECRET * 5, "quantity": 1, "note": "", "created_at": "now",
                              "updated_at": "now"},
             400, "check_violation", {"constraint": "items_name_max_length"}),
            ("POST", "/items", {**good, "note": f"{SECRET}\x00"}, 400, "invalid_value", {"field": "note"}),
            ("PATCH", item, {"note": f"{SECRET}\x00"}, 400, "invalid_value", {"field": "note"}),
            ("GET", f"/items?value={SECRET}%00", None, 400, "invalid_value", {"field": "code"}),
            ("POST", "/items", {**good, "quantity": 2**63}, 400, "invalid_value", {"field": "quantity"}),
            ("POST", "/raw", {**good, "quantity": 2**70}, 400, "invalid_value", {}),
            ("POST", "/items", {**good, "note": SECRET * (50 * 2**20 // len(SECRET))}, 413, "value_too_large",
             {"field": "note"}),
            ("GET", f"/items/{SECRET}", None, 400, "invalid_value", {"field": "id"}),
            ("GET", f"/items/{uuid4()}", None, 404, "record_not_found", {"table": "items"}),
            ("PATCH", f"/items/{uuid4()}", {"note": SECRET}, 404, "record_not_found", {"table": "items"}),
            ("GET", "/notes", None, 403, "tenant_required", {}),
            ("GET", f"/notes?tenant={SECRET}", None, 400, "invalid_value", {}),
        ]  # fmt: skip
        for method, path, body, status, code, details in cases:
            content = None if body is None else msgspec.json.encode(body)
            response = await client.request(method, path, content=content)
            problem = response.json()
            assert (response.status_code, problem["code"]) == (status, code), (method, path, problem)
            assert response.headers["content-type"] == "application/problem+json"
            assert details.items() <= problem.get("details", {}).items(), (path, problem)
            told = response.text.lower()
            assert SECRET not in told
            assert all(word not in told for word in ("insert", "select", "update ", "values")), told
            assert len(told) < 600
            assert await service.items.list() == [kept]
        assert [each.name for each in await service.shelves.list()] == ["a"]


async def test_request_is_refused_when_the_pool_is_exhausted_and_freed_when_its_client_leaves(
    db: Database, postgres_url: str
) -> None:
    """503 after the timeout; a client that leaves in mid-query gives the connection back, and nothing is written."""
    await make_tables(db, Shelf, Item)
    async with running(postgres_url, pool_max_size=1, pool_timeout_s=0.3) as (service, client):
        async with httpx.AsyncClient(base_url=client.base_url) as leaving:
            held = asyncio.create_task(leaving.post("/hold", json={}))
            await asyncio.wait_for(service.holding.wait(), 10)
            begin = time.monotonic()
            response = await client.get("/items")
            assert 0.25 < time.monotonic() - begin < 5
            assert (response.status_code, response.json()["code"]) == (503, "pool_exhausted")
            assert response.json()["retryable"] is True
            assert response.headers["retry-after"] == "1"
            held.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await held

        async def works() -> bool:
            return (await client.get("/items")).status_code == 200

        await eventually(works)
        assert (await client.get("/items")).json() == []
        busy = sql.SQL(
            "select 1 from pg_stat_activity where datname = current_database() and state = %s and "
            "query like 'select pg_sleep%%'"
        )
        assert await db.select(busy, ["active"]) == []


async def test_pages_tell_that_the_database_is_gone_and_back(own_postgres: EmbeddedPostgres) -> None:
    """`database: connected` with its latency; an error and 503 while it is gone; well within 2 s of its return."""
    async with running(own_postgres.url, pool_max_size=3) as (service, client):
        await make_tables(service.db, Shelf, Item)
        detailed = await client.get("/health/detailed")
        report = detailed.json()
        assert (detailed.status_code, report["status"], report["database"]) == (200, "healthy", "connected")
        assert 0 < report["database_details"]["latency_ms"] < 5000
        assert report["database_details"]["pool_size"] >= 1
        assert (await client.post("/items", json={"name": "a", "code": "a"})).status_code == 201
        own_postgres.kill()
        for _ in range(3):
            begin = time.monotonic()
            response = await client.get("/items")
            assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
            assert time.monotonic() - begin < 2
            detailed = await client.get("/health/detailed")
            report = detailed.json()
            assert (detailed.status_code, report["status"]) == (503, "unhealthy")
            assert report["database"].startswith("error: database_unavailable")
            assert own_postgres.password not in detailed.text
            assert (await client.get("/health/live")).status_code == 200
        own_postgres.start()
        back = time.monotonic()

        async def works() -> bool:
            report = (await client.get("/health/detailed")).json()
            return report["database"] == "connected" and (await client.get("/items")).status_code == 200

        await eventually(works)
        assert time.monotonic() - back < 2
        assert [each["code"] for each in (await client.get("/items")).json()] == ["a"]
