"""`HttpSettings`, the plugin's section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from cliffracer_core.interfaces import ServiceInfo

from .servers.interface import ServerSettings

__all__ = ["CorsSettings", "HttpSettings", "server_settings", "settings_of"]

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class CorsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which other origins' pages may read responses; none by default."""

    origins: tuple[str, ...] = ()
    """Origins such as `https://app.example.com`; `*` is any, and excludes credentials."""
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    headers: tuple[str, ...] = ()
    """Request headers beyond those that browsers send without asking."""
    expose: tuple[str, ...] = ("X-Correlation-ID",)
    credentials: bool = False
    max_age_s: Annotated[int, msgspec.Meta(ge=0)] = 600


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and how a service answers HTTP. Services of one process with one address share its server."""

    enabled: bool = False
    """Listen also where there is no route, for /health alone."""
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    """0 takes a free one."""
    unix_socket: str | None = None
    """Listen on this path in place of host and port."""
    reuse_port: bool = False
    """Share the port with other processes of this user that do so too; `cliffracer run --workers` sets it."""
    server: Literal["auto", "hypercorn", "uvicorn", "granian"] = "hypercorn"
    """`auto` takes the fastest that is installed."""
    tls_cert: str | None = None
    """Path of the certificate chain in PEM; with `tls_key` the server speaks TLS."""
    tls_key: str | None = None
    tls_key_password: str | None = None
    tls_reload_s: Positive = 5.0
    """How often the certificate's files are looked at for a change."""
    http3: bool = False
    """Serve HTTP/3 too, over UDP at the same port; with Hypercorn, TLS and cliffracer-http[http3]."""
    prefix: str = ""
    """Stands before every route's path, such as `/api`; health stays at the root."""
    cors: CorsSettings = CorsSettings()
    compression: bool = False
    """Compress responses that are worth it, where the client accepts gzip."""
    compression_min_bytes: Count = 1024
    max_body_bytes: Count = 1024 * 1024
    """Larger request bodies are refused (413); a route may set its own."""
    max_headers: Count = 100
    """A request with more headers is refused (431)."""
    body_timeout_s: Positive = 20.0
    """For each next part of a request's body; one that trickles in is refused (408), too."""
    max_header_bytes: Count = 64 * 1024
    """A longer head of a request is refused (431)."""
    header_timeout_s: Positive = 10.0
    """For the whole head of a request, where the server can."""
    keep_alive_s: Positive = 75.0
    """An idle connection is closed after so long."""
    write_timeout_s: Positive = 60.0
    """A client that reads nothing for so long, while there is much to send, is cut off."""
    upload_memory_bytes: Count = 1024 * 1024
    """An uploaded file larger than this is kept on disk."""
    idempotency_ttl_s: Positive = 24 * 3600.0
    idempotency_store: str | None = None
    """The store that remembers responses to an `Idempotency-Key`; None is `default`, unless that is memory."""
    guard_token: str | None = None
    """Off loopback, /health/detailed, /openapi.json and /docs want `Authorization: Bearer` with this token."""
    docs: Literal["guarded", "public", "off"] = "guarded"
    """Who may read /openapi.json and /docs: as `guard_token` says, anybody, or nobody."""
    middleware: tuple[str, ...] = ()
    """ASGI middleware as `module:factory`, outermost first; each is called with the next application."""
    static: Mapping[str, str] = {}
    """URL path to folder of files served there."""
    spa: str | None = None
    """Folder of a single-page application: its files, and its index.html for every other page."""


def server_settings(settings: HttpSettings) -> ServerSettings:
    """Return the part of the settings that a server of ASGI applications needs."""
    names = ServerSettings.__struct_fields__
    return ServerSettings(**{name: getattr(settings, name) for name in names if hasattr(settings, name)})


def settings_of(service: ServiceInfo) -> HttpSettings:
    """Return the section `http`; defaults where there is none."""
    settings = service.settings.get("http")
    return settings if isinstance(settings, HttpSettings) else HttpSettings()
