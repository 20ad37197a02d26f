"""Hook implementations."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cliffracer_core.handlers import Declaration
from cliffracer_core.hookspecs import hookimpl
from cliffracer_core.interfaces import (
    HttpServer,
    Lifespan,
    Middleware,
    Resolver,
    Route,
    Section,
    ServiceAttribute,
    ServiceInfo,
    Wiring,
)

from .settings import HttpSettings, settings_of

if TYPE_CHECKING:
    from .idempotency import Idempotency
    from .server import Server

__all__ = ["Http"]


class Http:
    """The plugin of one process start; Starlette is imported where a service serves HTTP."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        """By the id of the service they serve."""
        self._keys: dict[str, Idempotency] = {}

    @hookimpl
    def cliffracer_register_settings(self) -> Sequence[Section]:
        """Offer the section `http`, and the flat name `http_port`."""
        return [
            Section(
                name="http",
                type=HttpSettings,
                flat={"http_port": "port"},
                secrets=frozenset({"guard_token", "tls_key_password"}),
            )
        ]

    @hookimpl
    def cliffracer_register_service_attributes(self) -> Mapping[str, ServiceAttribute]:
        """Offer `service.app`, `service.http` and the decorators `service.get` and others."""
        from .attributes import attributes

        return attributes(self.servers)

    @hookimpl
    def cliffracer_register_injectables(self) -> Mapping[type, Resolver]:
        """Give handlers the `Request` and uploaded files; where none is imported, none can be asked for."""
        if "starlette.datastructures" not in sys.modules:
            return {}
        from .injectables import injectables

        return injectables()

    @hookimpl
    def cliffracer_register_routes(self, declaration: Declaration, service: ServiceInfo) -> Sequence[Route]:
        """Find the routes of a handler."""
        found = declaration.find("http", "http")
        if not found:
            return []
        from .model import path_of

        prefix = settings_of(service).prefix
        return [
            Route(path=path_of(each.options, prefix), methods=each.options.methods, declaration=declaration)
            for each in found
        ]

    @hookimpl
    def cliffracer_register_middleware(self, declaration: Declaration, service: ServiceInfo) -> Sequence[Middleware]:
        """Answer a repeated `Idempotency-Key` with the first response, where a handler may change something."""
        methods = {method for each in declaration.find("http", "http") for method in each.options.methods}
        if not methods:
            return []
        from .model import SAFE

        if methods <= set(SAFE) or inspect.isasyncgenfunction(declaration.function):
            return []
        from .idempotency import Idempotency

        keys = self._keys.get(service.id)
        if keys is None:
            keys = self._keys[service.id] = Idempotency(settings_of(service).idempotency_ttl_s)
        return [Middleware("shape", -500, keys.wrap, "idempotency")]

    @hookimpl
    def cliffracer_register_lifespans(self, service: ServiceInfo) -> Sequence[Lifespan]:
        """Give the memory of keys its store while the service runs, and forget the service afterwards."""
        return [self._around]

    @contextlib.asynccontextmanager
    async def _around(self, wiring: Wiring) -> AsyncIterator[None]:
        service = wiring.service
        keys = self._keys.pop(service.id, None)
        if keys is not None:
            keys.use(wiring.stores, settings_of(service).idempotency_store)
        try:
            yield
        finally:
            self.servers.pop(service.id, None)

    @hookimpl(optionalhook=True)
    def cliffracer_register_commands(self) -> Sequence[object]:
        """Offer `cliffracer openapi`; asked by cliffracer-cli."""
        from .command import command

        return [command]

    @hookimpl
    def cliffracer_register_http_server(self, wiring: Wiring, routes: Sequence[Route]) -> Sequence[HttpServer]:
        """Serve where there is something to serve."""
        settings = settings_of(wiring.service)
        ours = any("endpoint" in each.options or _is_marked(each.declaration) for each in routes)
        if not (ours or settings.enabled or "app" in wiring.attributes):
            return []
        from .server import Server

        server = self.servers[wiring.service.id] = Server()
        return [server]


def _is_marked(declaration: Declaration | None) -> bool:
    return declaration is not None and bool(declaration.find("http", "http"))
