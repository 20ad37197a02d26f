"""Hook implementations."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cliffracer_core.handlers import Declaration
from cliffracer_core.hookspecs import hookimpl
from cliffracer_core.interfaces import HttpServer, Resolver, Route, Section, ServiceAttribute, ServiceInfo, Wiring

from .settings import HttpSettings, settings_of

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Http"]


class Http:
    """The plugin of one process start; Starlette is imported where a service serves HTTP."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        """By the id of the service they serve."""

    @hookimpl
    def cliffracer_register_settings(self) -> Sequence[Section]:
        """Offer the section `http`, and the flat names `http_host` and `http_port`."""
        return [
            Section(
                name="http",
                type=HttpSettings,
                flat={"http_host": "host", "http_port": "port"},
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
        if "starlette.requests" not in sys.modules:
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
    def cliffracer_register_http_server(self, wiring: Wiring, routes: Sequence[Route]) -> Sequence[HttpServer]:
        """Serve where there is something to serve."""
        settings = settings_of(wiring.service)
        if not (routes or settings.enabled or "app" in wiring.attributes):
            return []
        from .server import Server

        server = self.servers[wiring.service.id] = Server()
        return [server]
