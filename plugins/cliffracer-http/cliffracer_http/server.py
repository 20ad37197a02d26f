"""The kernel's HTTP server for one service: compile its routes, enter the site of its address."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from cliffracer_core.errors import ConfigurationError
from cliffracer_core.interfaces import Entry, Route, SocketLimits, Wiring

from .application import Application, Dispatcher, Table
from .endpoint import Endpoint, compile_endpoint
from .limits import BodyLimits
from .model import RouteModel, models_of
from .settings import HttpSettings, settings_of
from .shortcuts import compressing, cross_origin
from .site import SOCKET, Resident, Site, site_for
from .static import static_routes
from .watch import Watch

__all__ = ["APP", "Server"]

APP = "app"
"""Name of the attribute that holds a service's `Application`."""


class Server:
    """Serves one service; implements the kernel's `HttpServer`."""

    def __init__(self) -> None:
        self.app: Application | None = None
        self.models: list[RouteModel] = []
        self._site: Site | None = None
        self._grace_s = 10.0
        self._resident: Resident | None = None

    @property
    def url(self) -> str | None:
        """Where it listens; None while it does not."""
        return None if self._site is None else self._site.url

    async def start(self, wiring: Wiring, routes: Sequence[tuple[Route, Entry]], asgi: Sequence[Any]) -> None:
        """Compile and listen.

        Raises:
            ConfigurationError: a route that cannot be served, or that another one has.
            StartupError: the address cannot be listened on.
        """
        settings = settings_of(wiring.service)
        self._grace_s = wiring.grace_s
        given = wiring.attributes.get(APP)
        app = self.app = given if isinstance(given, Application) else Application()
        table = Table()
        static = static_routes(settings.static, settings.spa)
        body = BodyLimits(settings.max_body_bytes, settings.body_timeout_s)
        dispatcher = Dispatcher(wiring.service.name, table, app, static, body, max_headers=settings.max_headers)
        self.models = self._fill(table, dispatcher, app, wiring, routes, settings)
        factories = [*_configured(settings), *asgi]
        self._resident = Resident(wiring, self.models, table, dispatcher, dispatcher.wrap(factories))
        limits = (route.options.get("sockets") for route, _ in routes)
        self._resident.sockets = next((each for each in limits if isinstance(each, SocketLimits)), SocketLimits())
        self._resident.socket_paths = [route.path for route, _ in routes if SOCKET in route.methods]
        site = site_for(settings)
        await site.enter(self._resident)
        self._site = site

    async def stop(self) -> None:
        """Accept no more, finish what runs."""
        if self._site is not None and self._resident is not None:
            site, self._site = self._site, None
            await site.leave(self._resident, 0.6 * self._grace_s)

    def _fill(
        self, table: Table, dispatcher: Dispatcher, app: Application, wiring: Wiring,
        routes: Sequence[tuple[Route, Entry]], settings: HttpSettings,
    ) -> list[RouteModel]:  # fmt: skip
        models: list[RouteModel] = []
        entries: dict[str, Entry] = {}
        for route, entry in routes:
            if "endpoint" in route.options:
                for method in route.methods:
                    _put(table, method, route.path, _foreign(route, entry), wiring)
            elif route.declaration.name not in entries:
                entries[route.declaration.name] = entry
                security = wiring.security.get(route.declaration.name, ())
                signature = wiring.signatures[route.declaration.name]
                models += models_of(route.declaration, signature, settings.prefix, security)

        watch, pace = Watch(settings.body_timeout_s), BodyLimits(None, settings.body_timeout_s)

        def compiled(model: RouteModel, *, head: bool) -> Endpoint:
            return compile_endpoint(
                model, entries[model.handler], dispatcher.fail, app, watch, pace, timeout_s=wiring.timeout_s,
                max_body_bytes=settings.max_body_bytes, memory_bytes=settings.upload_memory_bytes, head=head,
            )  # fmt: skip

        for model in models:
            _put(table, model.method, model.path, compiled(model, head=model.method == "HEAD"), wiring)
        for model in models:
            if model.method == "GET":
                table.put("HEAD", model.path, compiled(model, head=True))
        return models


def _put(table: Table, method: str, path: str, endpoint: Endpoint, wiring: Wiring) -> None:
    if not table.put(method, path, endpoint):
        raise ConfigurationError(
            f"service {wiring.service.name!r} has two handlers for '{method} {path}'; change one path or method"
        )


def _foreign(route: Route, entry: Entry) -> Endpoint:
    """Make the endpoint of a route of another plugin, which serves it itself."""
    serve: Any = route.options.get("endpoint")
    if not callable(serve):
        raise ConfigurationError(f"route {route.path!r}: its plugin gave no callable as options['endpoint']")
    return serve(entry)  # type: ignore[no-any-return]  # options hold anything


def _configured(settings: HttpSettings) -> list[Callable[[Any], Any]]:
    factories: list[Callable[[Any], Any]] = []
    cors = settings.cors
    if cors.origins:
        if "*" in cors.origins and cors.credentials:
            raise ConfigurationError("http.cors: credentials need origins by name; '*' would be every page's")
        factories.append(
            lambda app: cross_origin(
                app, allow_origins=cors.origins, allow_methods=cors.methods, allow_headers=cors.headers,
                expose_headers=cors.expose, allow_credentials=cors.credentials, max_age=cors.max_age_s,
            )
        )  # fmt: skip
    if settings.compression:
        factories.append(lambda app: compressing(app, settings.compression_min_bytes))
    return [*factories, *map(_imported, settings.middleware)]


def _imported(name: str) -> Callable[[Any], Any]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"http.middleware: {name!r} cannot be imported ({error}); write it as 'module:factory'"
        ) from error
    return found  # type: ignore[no-any-return]  # whatever stands there is called
