"""Models whose rows belong to tenants, and a plugin that says who calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from cliffracer_db import Column, DatabaseModel, Repository, tenant_field, transactional
from msgspec import Meta

from cliffracer_core import CliffracerService, rpc
from cliffracer_core.context import Identity, MessageContext
from cliffracer_core.handlers import Declaration
from cliffracer_core.hookspecs import hookimpl
from cliffracer_core.interfaces import Call, Middleware, ServiceInfo

A, B = UUID(int=0xA), UUID(int=0xB)


class Note(DatabaseModel, tenant="org_id"):
    __tablename__ = "notes"

    title: Annotated[str, Meta(max_length=100), Column(unique=True)]
    body: str = ""
    org_id: UUID = tenant_field(UUID)


class Label(DatabaseModel, tenant="shop"):
    __tablename__ = "labels"

    text: str
    shop: str = tenant_field(str)


class Counter(DatabaseModel, tenant="branch"):
    __tablename__ = "counters"

    number: int
    branch: int = tenant_field(int)


class Notes(CliffracerService):
    name = "notes"
    notes = Repository(Note)

    @rpc
    async def add(self, title: str) -> Note:
        return await self.notes.create(Note(title=title))

    @rpc(idempotent=True)
    async def add_once(self, title: str) -> Note:
        return await self.notes.create(Note(title=title))

    @rpc
    async def titles(self) -> list[str]:
        return [each.title for each in await self.notes.list()]

    @rpc
    @transactional
    async def add_two(self, first: str, second: str) -> int:
        await self.notes.create(Note(title=first))
        await self.notes.create(Note(title=second))
        return await self.notes.count()


class WhoCalls:
    """Takes a header's word for the caller's tenant, as no program should."""

    @hookimpl
    def cliffracer_register_middleware(self, declaration: Declaration, service: ServiceInfo) -> Sequence[Middleware]:
        def wrap(call: Call) -> Call:
            async def known(context: MessageContext) -> object:
                tenant = context.headers.get("X-Test-Tenant")
                claims: dict[str, object] = (
                    {} if tenant is None else {"tenant": tenant if tenant != "list" else [tenant]}
                )
                context.identity = Identity(id="ada", claims=claims)
                return await call(context)

            return known

        return [Middleware(stage="guard", order=1, wrap=wrap, name="who")]
