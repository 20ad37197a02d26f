"""Hook implementations."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cliffracer_core.errors import ConfigurationError
from cliffracer_core.handlers import Bridge, Declaration, Mark
from cliffracer_core.hookspecs import hookimpl
from cliffracer_core.interfaces import (
    Entry,
    EntryPoint,
    Lifespan,
    Middleware,
    Resolver,
    Route,
    Section,
    ServiceAttribute,
    ServiceFace,
    ServiceInfo,
    Wiring,
)

from .marks import HOOKS, OWNER, websocket
from .settings import WebSocketSettings

if TYPE_CHECKING:
    from .faces import Broadcast
    from .sockets import Sockets

__all__ = ["WebSocketPlugin"]


class WebSocketPlugin:
    """The plugin of one process start; Starlette is imported where a service has sockets."""

    def __init__(self) -> None:
        self._running: dict[str, Sockets] = {}
        """By the service instance's id."""

    @hookimpl
    def cliffracer_register_settings(self) -> Sequence[Section]:
        """Offer the section `websocket`, and the flat name `websocket_port`."""
        return [Section(name="websocket", type=WebSocketSettings, flat={"websocket_port": "port"})]

    @hookimpl
    def cliffracer_register_handler_names(self) -> Mapping[str, Mark]:
        """Make `on_websocket_connect` and its like handlers."""
        return HOOKS

    @hookimpl
    def cliffracer_register_service_attributes(self) -> Mapping[str, ServiceAttribute]:
        """Offer `service.websocket_broadcast(data)` and `@service.websocket(path)`."""
        return {
            "websocket_broadcast": self._broadcaster,
            "websocket": _decorator,
            "websocket_url": self._url,
        }

    @hookimpl
    def cliffracer_register_injectables(self) -> Mapping[type, Resolver]:
        """Give handlers their `WebSocket`; where it is not imported, none can be asked for."""
        if "starlette.websockets" not in sys.modules:
            return {}
        from starlette.websockets import WebSocket as StarletteWebSocket

        from .calls import socket_of
        from .socket import WebSocket

        return {WebSocket: socket_of, StarletteWebSocket: socket_of}

    @hookimpl
    def cliffracer_register_middleware(self, declaration: Declaration, service: ServiceInfo) -> Sequence[Middleware]:
        """Pass on the events of `@event(..., to=...)`."""
        bridged = [mark.options for mark in declaration.find(OWNER) if isinstance(mark.options, Bridge)]
        if not bridged:
            return []
        from .bridge import bridge

        return [bridge(declaration.where, options, lambda: self._sockets(service).processor) for options in bridged]

    @hookimpl
    def cliffracer_register_lifespans(self, service: ServiceInfo) -> Sequence[Lifespan]:
        """Meet the other replicas while the service runs."""
        return [self._lifespan]

    @hookimpl
    def cliffracer_register_websocket_routes(self, declaration: Declaration, service: ServiceInfo) -> Sequence[Route]:
        """Give the HTTP server an ASGI application for each path."""
        sockets = self._running.get(service.id)
        if sockets is None or sockets.own is not None:
            return []
        return [
            Route(
                path=path, methods=("WEBSOCKET",), declaration=declaration,
                options={"endpoint": _given(endpoint), "sockets": sockets.server_limits},
            )
            for path, endpoint in sockets.endpoints(declaration)
        ]  # fmt: skip

    @hookimpl
    def cliffracer_register_entry_points(self, declaration: Declaration, service: ServiceInfo) -> Sequence[EntryPoint]:
        """Take the compiled handlers that sockets call."""
        wanted = any(not isinstance(mark.options, Bridge) for mark in declaration.find(OWNER))
        return [_Handle(self._sockets(service), declaration.name)] if wanted else []

    @hookimpl
    def cliffracer_on_ready(self, service: ServiceInfo) -> None:
        """Let the sockets in that came while the service started."""
        sockets = self._running.get(service.id)
        if sockets is not None:
            sockets.started.set()

    @hookimpl
    def cliffracer_on_stopping(self, service: ServiceInfo) -> None:
        """Send the clients to other replicas."""
        sockets = self._running.get(service.id)
        if sockets is not None:
            sockets.drain()

    @contextlib.asynccontextmanager
    async def _lifespan(self, wiring: Wiring) -> AsyncIterator[None]:
        if not _wanted(wiring):
            yield
            return
        from .sockets import Sockets

        sockets = self._running[wiring.service.id] = Sockets(wiring)
        try:
            async with sockets.running():
                yield
        finally:
            del self._running[wiring.service.id]

    def _sockets(self, service: ServiceInfo) -> Sockets:
        sockets = self._running.get(service.id)
        if sockets is None:
            raise ConfigurationError(
                f"service {service.name!r} has no sockets; give it a handler under @websocket, or on_websocket_message"
            )
        return sockets

    def _url(self, service: ServiceFace) -> Callable[[], str]:
        """Return where the sockets are reached, such as `ws://127.0.0.1:8081`, if they have a port of their own."""
        return lambda: self._sockets(service.info).own_url()

    def _broadcaster(self, service: ServiceFace) -> Broadcast:
        async def websocket_broadcast(data: object, *, key: str | None = None) -> None:
            """Send a message to every socket of the service, at every replica; see `broadcast_all`."""
            await self._sockets(service.info).processor.broadcast_all(data, key=key)

        return websocket_broadcast


class _Handle:
    """Takes one compiled handler for a service's sockets."""

    def __init__(self, sockets: Sockets, name: str) -> None:
        self._sockets = sockets
        self._name = name

    async def start(self, entry: Entry) -> None:
        """Take it."""
        self._sockets.entries[self._name] = entry

    async def stop(self) -> None:
        """Finish the messages that are handled; open no more sockets."""
        await self._sockets.settle()


def _wanted(wiring: Wiring) -> bool:
    """Tell whether a service has anything to do with sockets."""
    if any(declaration.find(OWNER) for declaration in wiring.declarations):
        return True
    module = sys.modules.get(f"{__package__}.processor")
    return module is not None and any(
        isinstance(each, module.RealTimeStreamProcessor) for each in wiring.providers.values()
    )


def _given(endpoint: Any) -> Callable[[Entry], Any]:
    return lambda entry: endpoint


def _decorator(service: ServiceFace) -> Callable[[str], Callable[[Any], Any]]:
    return lambda path: service.handler(websocket(path))
