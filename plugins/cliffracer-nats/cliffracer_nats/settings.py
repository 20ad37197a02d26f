"""`NatsSettings`, the plugin's section, and the NATS URL that carries the same fields."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

from cliffracer_core.errors import ConfigurationError

__all__ = ["SECRETS", "NatsSettings", "mask_url", "options_url", "parse_url"]

SECRETS = frozenset({"url", "user", "password", "token", "nkey_seed", "tls_key_password"})
DEFAULT_PORT = 4222
_USERINFO = re.compile(r"//[^/?]*@")  # up to the last '@' before the path, so that nothing of a password is left


class NatsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach NATS, and how streams are made.

    Every field may also stand in the URL's query: `nats://a:4222,nats://b:4222?tls_ca=/etc/ca.pem`.
    """

    url: str = "nats://localhost:4222"
    """One server or several joined by commas; `tls://` insists on TLS."""
    user: str | None = None
    password: str | None = None
    token: str | None = None
    nkey_seed: str | None = None
    """An nkey seed (`SU...`) or the path of a file that holds one; needs `cliffracer-nats[nkeys]`."""
    creds: str | None = None
    """Path of a `.creds` file (JWT and seed); needs `cliffracer-nats[nkeys]`."""
    tls_ca: str | None = None
    """Path of the authorities to trust; given this, the connection insists on TLS."""
    tls_cert: str | None = None
    """Path of the client's certificate, for mutual TLS."""
    tls_key: str | None = None
    tls_key_password: str | None = None
    tls_hostname: str | None = None
    """The name to expect in the server's certificate, where it is not the one connected to."""
    tls_first: bool = False
    """Begin TLS before the server's greeting (`handshake_first` in its configuration)."""
    name: str | None = None
    """The connection's name in the server's monitoring; else the service's."""
    connect_timeout_s: float = 5.0
    """The whole of `open`, over all servers."""
    reconnect_wait_s: float = 0.1
    """The first pause before reconnecting; it doubles, with jitter, up to `reconnect_max_wait_s`."""
    reconnect_max_wait_s: float = 5.0
    max_reconnect_attempts: int = -1
    """How often in a row one server is tried again; -1 is for ever."""
    ping_interval_s: float = 20.0
    """Two of these without an answer, and the connection counts as lost."""
    flush_timeout_s: float = 10.0
    buffer_bytes: int = 8 * 1024 * 1024
    """What `publish` keeps while disconnected, before it raises `ConnectionError`."""
    pending_bytes: int = 128 * 1024 * 1024
    """What one subscription keeps unhandled, before messages are dropped, counted and logged."""
    data_path: Literal["direct", "nats-py"] = "direct"
    """How messages are read and written: by this plugin under nats-py's connection, or by nats-py alone."""
    replicas: int = 1
    """Copies of each stream made, in a cluster."""
    storage: str = "file"
    """Of streams made: `file` or `memory`."""
    duplicate_window_s: float = 120.0
    """How long one message id is stored once."""
    jetstream_timeout_s: float = 5.0
    """For one question to JetStream's API."""
    bucket: str = "cliffracer"
    """The key-value bucket of `NatsStore`."""


def mask_url(url: str) -> str:
    """Take user, password and query out of a URL, so that it can be shown."""
    return ",".join(_USERINFO.sub("//***@", part.partition("?")[0]) for part in url.split(","))


def parse_url(url: str, settings: NatsSettings) -> NatsSettings:
    """Merge a URL into settings; what the URL says wins.

    Args:
        url: `nats://user:password@host:4222,nats://host2:4222?field=value`; a user without a password
            is a token; percent signs escape. An empty URL stands for `settings.url`.
        settings: the rest.

    Returns:
        Settings whose `url` is a list of servers joined by commas, without credentials and query.

    Raises:
        ConfigurationError: for a URL that is none, or a query field that does not exist.
    """
    servers: list[str] = []
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in (url or settings.url).split(","))):
        try:
            split = urlsplit(part if "://" in part else f"nats://{part}")
            host, port = split.hostname, split.port
        except ValueError as error:
            raise _bad_url(part, str(error)) from None
        scheme = split.scheme.partition("+")[0]
        if scheme not in ("nats", "tls") or not host:
            raise _bad_url(part, "its scheme is not nats or tls" if host else "it has no host")
        if split.username:
            user = {"token": unquote(split.username)}
            if split.password is not None:
                user = {"user": unquote(split.username), "password": unquote(split.password)}
            if any(found.get(key, value) != value for key, value in user.items()):
                raise _bad_url(part, "its credentials differ from those of the server before it")
            found |= user
        found |= dict(parse_qsl(split.query, keep_blank_values=True))
        servers.append(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or DEFAULT_PORT}")
    if not servers:
        raise _bad_url(url, "it names no server")
    return _with_fields(settings, {"url": ",".join(servers), **found})


def _with_fields(settings: NatsSettings, found: Mapping[str, str]) -> NatsSettings:
    known = {field.name for field in msgspec.structs.fields(NatsSettings)}
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}" if near else f"known are {', '.join(sorted(known))}"
            raise ConfigurationError(f"setting 'nats.{name}' does not exist; {hint}")
    merged = msgspec.structs.asdict(settings)
    try:
        return msgspec.convert({**merged, **found}, NatsSettings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"settings 'nats': {error}; correct the field") from None


def _bad_url(url: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"NATS URL {mask_url(url)!r}: {reason}; write 'nats://host:4222'")


def options_url(options: Mapping[str, object]) -> str:
    """Build a URL from `ClientProxy` options: `url` or `servers` or `host` and `port`, and any setting."""
    rest = {name: value for name, value in options.items() if value is not None}
    servers = rest.pop("servers", None)
    url = str(rest.pop("url", "") or "")
    host, port = str(rest.pop("host", "localhost")), rest.pop("port", DEFAULT_PORT)
    if isinstance(servers, str):
        url = servers
    elif isinstance(servers, list | tuple):
        url = ",".join(map(str, servers))
    if not url:
        url = f"nats://{f'[{host}]' if ':' in host else host}:{port}"
    joint = "&" if "?" in url else "?"
    return url + joint + urlencode({key: str(value) for key, value in rest.items()}, quote_via=quote) if rest else url
