"""`/openapi.json` and `/docs`: what the services behind one port offer, for programs and for people."""

from __future__ import annotations

import base64
import binascii
import hmac
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cliffracer_core.errors import AuthenticationError, CliffracerError
from cliffracer_core.interfaces import ServiceInfo
from cliffracer_core.messages import JSON

from .edge import CORRELATION_HEADER, correlation_of
from .health import guard
from .openapi import Described, openapi_document
from .page import SWAGGER_PAGE, plain_page
from .settings import HttpSettings, settings_of

__all__ = ["DOCS_PATHS", "Docs", "paths_for", "swagger_files"]

DOCS_PATHS = ("/openapi.json", "/docs", "/docs/swagger-ui.css", "/docs/swagger-ui.js", "/docs/start.js")
_START = (
    b"""window.onload = () => { SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true}) }\n"""
)
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
Fail = Callable[[Any, Any, Any, BaseException, str], Any]
Page = tuple[str, bytes]
"""Content type and body."""


@cache
def swagger_files() -> Mapping[str, Path]:
    """Return the files of Swagger UI by the path they are served at; none where no package brings them."""
    found = importlib.util.find_spec("flask_swagger_ui")  # it is not imported: its Flask is of no use here
    if found is None or not found.submodule_search_locations:
        return {}
    folder = Path(found.submodule_search_locations[0]) / "dist"
    files = {
        "/docs/swagger-ui.css": folder / "swagger-ui.css",
        "/docs/swagger-ui.js": folder / "swagger-ui-bundle.js",
    }
    return files if all(each.is_file() for each in files.values()) else {}


class Docs:
    """The pages of the services behind one port.

    Args:
        services: gives those that have been started; the first one's settings decide who may read.
        fail: answers for an error.
    """

    def __init__(self, services: Callable[[], Sequence[Described]], fail: Fail) -> None:
        self._services = services
        self._fail = fail
        self._made: tuple[list[str], bytes] | None = None

    def page(self, path: str) -> Any:
        """Return the endpoint of one of `DOCS_PATHS`."""

        async def serve(scope: Any, receive: Any, send: Any, values: dict[str, str]) -> None:
            services = [each for each in self._services() if settings_of(each[0]).docs != "off"]
            settings = settings_of(services[0][0]) if services else HttpSettings()
            try:
                if settings.docs != "public":
                    _guard(settings, scope)
                content_type, body = self._page(path, services)
            except AuthenticationError as error:
                await self._fail(scope, receive, _asking(send), error, correlation_of(scope))
            except CliffracerError as error:
                await self._fail(scope, receive, send, error, correlation_of(scope))
            else:
                await _send(scope, send, content_type, body)

        return serve

    def _page(self, path: str, services: Sequence[Described]) -> Page:
        files = swagger_files()
        if path == "/openapi.json":
            return "application/json", self._document(services)
        if path == "/docs":
            if files:
                return "text/html; charset=utf-8", SWAGGER_PAGE
            return "text/html; charset=utf-8", plain_page(openapi_document(services))
        if path == "/docs/start.js":
            return "text/javascript; charset=utf-8", _START
        kind = "css" if path.endswith(".css") else "javascript"
        return f"text/{kind}; charset=utf-8", files[path].read_bytes()

    def _document(self, services: Sequence[Described]) -> bytes:
        ids = [info.id for info, _ in services]
        if self._made is None or self._made[0] != ids:
            self._made = ids, JSON.encode(openapi_document(services))
        return self._made[1]


def paths_for(info: ServiceInfo) -> Sequence[str]:
    """Return the paths that are served under a service's settings."""
    if settings_of(info).docs == "off":
        return ()
    return DOCS_PATHS if swagger_files() else DOCS_PATHS[:2]


def _guard(settings: HttpSettings, scope: Any) -> None:
    """Let in as `guard` does, and browsers, which cannot send it, with the token as a password."""
    token = settings.guard_token
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    if token is not None and given[:6].lower() == b"basic ":
        try:
            password = base64.b64decode(given[6:], validate=True).partition(b":")[2]
        except binascii.Error:
            password = b""
        if hmac.compare_digest(password, token.encode()):
            return
    guard(settings, scope)


def _asking(send: Any) -> Any:
    """Make a refusal ask for a password too."""

    async def with_basic(message: Any) -> None:
        if message["type"] == "http.response.start":
            basic = (b"www-authenticate", b'Basic realm="docs", charset="UTF-8"')
            message = {**message, "headers": [*message["headers"], basic]}
        await send(message)

    return with_basic


async def _send(scope: Any, send: Any, content_type: str, body: bytes) -> None:
    headers = [
        (b"content-type", content_type.encode("ascii")),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-cache"),
        (b"content-security-policy", _POLICY),
        (b"x-content-type-options", b"nosniff"),
        (CORRELATION_HEADER, correlation_of(scope).encode("ascii")),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
