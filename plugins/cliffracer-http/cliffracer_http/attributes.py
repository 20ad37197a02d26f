"""What a service object gains: `app`, `http` and the decorators."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from cliffracer_core.errors import ConnectionError
from cliffracer_core.interfaces import ServiceAttribute, ServiceFace

from . import marks
from .application import Application
from .model import RouteModel
from .openapi import described, openapi_document
from .server import Server

__all__ = ["HttpFace", "attributes", "openapi"]


class HttpFace:
    """`service.http`: where a running service is reached, and what it answers."""

    def __init__(self, service: ServiceFace, servers: Mapping[str, Server]) -> None:
        self._service = service
        self._servers = servers

    @property
    def _server(self) -> Server:
        server = self._servers.get(self._service.info.id)
        if server is None:
            raise ConnectionError(f"service {self._service.name!r} serves no HTTP; add a route, or set http.enabled")
        return server

    @property
    def url(self) -> str:
        """Where it listens, such as `http://127.0.0.1:8080`. Raises ConnectionError while it does not."""
        url = self._server.url
        if url is None:
            raise ConnectionError(f"service {self._service.name!r} has stopped listening")
        return url

    @property
    def routes(self) -> list[RouteModel]:
        """The routes of its handlers. Raises ConnectionError while it is not running."""
        return list(self._server.models)


async def openapi(service: ServiceFace) -> dict[str, Any]:
    """Describe a service as OpenAPI 3.1, as plain data; it need not be running, and nothing is connected to.

    Raises:
        ConfigurationError: the service, or one of its routes, is declared wrongly.
    """
    return openapi_document([described(await service.wiring())])


def attributes(servers: Mapping[str, Server]) -> Mapping[str, ServiceAttribute]:
    """Return the attributes, given the servers by the id of the service they serve."""

    def application(service: ServiceFace) -> Application:
        try:
            server = servers.get(service.info.id)
        except ConnectionError:
            server = None
        return server.app if server is not None and server.app is not None else Application()

    made: dict[str, ServiceAttribute] = {"app": application, "http": lambda service: HttpFace(service, servers)}
    made["openapi"] = lambda service: functools.partial(openapi, service)
    for decorator in (marks.get, marks.post, marks.put, marks.patch, marks.delete, marks.head, marks.options):
        made[decorator.__name__] = _on_service(decorator)
    made["route"] = _on_service(marks.route)
    return made


def _on_service(decorator: Callable[..., Callable[[Any], Any]]) -> ServiceAttribute:
    def make(service: ServiceFace) -> Callable[..., Callable[[Any], Any]]:
        return lambda *args, **kwargs: service.handler(decorator(*args, **kwargs))

    return make
