"""One address: the services of this process that answer there, behind one server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from cliffracer_core.errors import ConfigurationError, NotFoundError
from cliffracer_core.interfaces import SocketLimits, Wiring

from .application import Dispatcher, Table
from .docs import Docs, paths_for
from .edge import correlation_of
from .handshakes import deny
from .health import HEALTH_PATHS, Health
from .model import RouteModel
from .problems import send_problem
from .servers.choice import make_server
from .servers.interface import AsgiServer
from .settings import HttpSettings, server_settings, settings_of

__all__ = ["SOCKET", "Resident", "Site", "site_for"]

SOCKET = "WEBSOCKET"
"""What stands for the method where a route is a websocket's."""
# Mutable module state: services that are started one by one, each with plugins of its own, must find the
# server that already listens on their port, and nothing but the running loop knows of all of them.
_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, Site]] = WeakKeyDictionary()


class Resident:
    """A service at a site: its wiring, its table of routes and its application."""

    def __init__(
        self, wiring: Wiring, models: list[RouteModel], table: Table, dispatcher: Dispatcher, asgi: Any
    ) -> None:
        self.wiring = wiring
        self.sockets = SocketLimits()
        """Of websockets; those of the first service at an address hold for all."""
        self.socket_paths: list[str] = []
        self.models = models
        self.table = table
        self.dispatcher = dispatcher
        self.asgi = asgi


class Site:
    """What listens on one address."""

    def __init__(self, key: object, settings: HttpSettings) -> None:
        self._key = key
        self._settings = settings
        self._residents: list[Resident] = []
        self._server: AsgiServer | None = None
        self._urls: list[str] = []
        self._lock = asyncio.Lock()
        self._asgi: Any = self._by_path
        health = Health(lambda: [each.wiring for each in self._residents], self._fail)
        self._health = {path: health.page(path) for path in HEALTH_PATHS}
        self._docs = Docs(lambda: [(each.wiring.service, each.models) for each in self._residents], self._fail)

    @property
    def url(self) -> str | None:
        """Where it listens, such as `http://127.0.0.1:8080`; None while it does not."""
        return None if self._server is None else self._urls[0]

    async def enter(self, resident: Resident) -> None:
        """Serve a service too; the first one starts the server.

        Raises:
            ConfigurationError: another service here has one of its routes, or wants another server.
            StartupError: the address cannot be listened on.
        """
        async with self._lock:
            self._check(resident)
            docs = {path: self._docs.page(path) for path in paths_for(resident.wiring.service)}
            for path, page in (self._health | docs).items():
                resident.table.put("GET", path, page)
                resident.table.put("HEAD", path, page)
            self._residents.append(resident)
            self._settle()
            if self._server is None:
                try:
                    await self._listen(resident.sockets)
                except BaseException:
                    self._residents.remove(resident)
                    _forget(self._key, self)
                    raise

    async def _listen(self, sockets: SocketLimits) -> None:
        if self._settings.reuse_port and (self._settings.port == 0 or self._settings.unix_socket is not None):
            raise ConfigurationError(
                "http.reuse_port and 'cliffracer run --workers' need a port that all processes know; set http.port, "
                "and no http.unix_socket"
            )
        server = make_server(self._settings.server)
        settings = msgspec.structs.replace(server_settings(self._settings), sockets=sockets)
        self._urls = await server.start(self, settings)
        self._server = server

    async def leave(self, resident: Resident, grace_s: float) -> None:
        """Serve a service no more; the last one stops the server, which finishes what runs."""
        async with self._lock:
            if resident not in self._residents:
                return
            if len(self._residents) == 1 and self._server is not None:
                server, self._server = self._server, None
                try:
                    await server.stop(grace_s)
                finally:
                    self._residents.remove(resident)
                    _forget(self._key, self)
            else:
                self._residents.remove(resident)
                self._settle()

    def _settle(self) -> None:
        self._asgi = self._residents[0].asgi if len(self._residents) == 1 else self._by_path

    def _check(self, resident: Resident) -> None:
        settings = settings_of(resident.wiring.service)
        for other in self._residents:
            if (settings.server, server_settings(settings)) != (self._settings.server, server_settings(self._settings)):
                raise ConfigurationError(
                    f"services {other.wiring.service.name!r} and {resident.wiring.service.name!r} share a port, and "
                    f"set http.server, TLS or its times differently; set them alike, or give one http.port"
                )
            for path in resident.socket_paths:
                methods = other.table.get(path)
                if methods is not None and SOCKET in methods:
                    raise ConfigurationError(
                        f"services {other.wiring.service.name!r} and {resident.wiring.service.name!r} both have "
                        f"websockets at {path!r} on one port; change one path, or give one a port of its own"
                    )
            for model in resident.models:
                methods = other.table.get(model.path)
                if methods is not None and model.method in methods:
                    raise ConfigurationError(
                        f"services {other.wiring.service.name!r} and {resident.wiring.service.name!r} both answer "
                        f"{model.where!r} on one port; change one path, or give one http.prefix or http.port"
                    )

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Serve as ASGI 3."""
        if scope["type"] == "lifespan":
            return _lifespan(receive, send)
        return self._asgi(scope, receive, send)  # type: ignore[no-any-return]  # a middleware of any kind

    async def _by_path(self, scope: Any, receive: Any, send: Any) -> None:
        """Find the service that knows a path; the first one says that none does."""
        for resident in self._residents:
            if resident.dispatcher.knows(scope):
                await resident.asgi(scope, receive, send)
                return
        if self._residents:
            await self._residents[0].asgi(scope, receive, send)
        elif scope["type"] == "websocket":
            await deny(scope, receive, send, 404, "nothing is here")
        else:
            await self._fail(scope, receive, send, NotFoundError("nothing is here"), correlation_of(scope))

    async def _fail(self, scope: Any, receive: Any, send: Any, error: BaseException, correlation_id: str) -> None:
        name = self._residents[0].wiring.service.name if self._residents else ""
        await send_problem(send, error, name, correlation_id, head=scope["method"] == "HEAD")


def site_for(settings: HttpSettings) -> Site:
    """Return the running loop's site for an address; port 0 is a new one each time."""
    loop = asyncio.get_running_loop()
    for known in [each for each in _by_loop if each.is_closed()]:
        del _by_loop[known]
    if settings.unix_socket is None and settings.port == 0:
        return Site(None, settings)
    key = settings.unix_socket or (settings.host, settings.port)
    sites = _by_loop.setdefault(loop, {})
    if key not in sites:
        sites[key] = Site(key, settings)
    return sites[key]


def _forget(key: object, site: Site) -> None:
    sites = _by_loop.get(asyncio.get_running_loop(), {})
    if sites.get(key) is site:
        del sites[key]


async def _lifespan(receive: Any, send: Any) -> None:
    """Answer a server that insists on the protocol; starting and stopping are the service's own."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
