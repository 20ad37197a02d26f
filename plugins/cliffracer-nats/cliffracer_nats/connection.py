"""`Connection`: owns the nats-py client; connects in bounded time, then reconnects for ever."""

from __future__ import annotations

import asyncio
import builtins
import logging
import random
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nats import errors
from nats.aio.client import Server

from cliffracer_core.errors import AuthenticationError, ConfigurationError, ConnectionError

from .client import MendedClient
from .settings import NatsSettings

__all__ = ["Connection", "CredentialsRefused"]

_log = logging.getLogger("cliffracer.nats")
_LOG_EVERY_S = 30.0
_DENIED = ("authorization violation", "authentication", "user authentication expired", "maximum connections")


class CredentialsRefused(ConnectionError, AuthenticationError, retryable=False):
    """The server is there and does not let this client in."""


class Connection:
    """One connection to NATS.

    Args:
        settings: with `url` as `parse_url` returns it.
        label: how errors name the owner, such as `transport 'nats'`.
        name: the connection's name, where the settings have none.
    """

    def __init__(self, settings: NatsSettings, label: str, name: str = "") -> None:
        self.settings = settings
        self.label = label
        self.client: MendedClient | None = None
        self.dropped = 0
        """Messages that were thrown away because a subscription had too many unhandled."""
        self.on_reconnect: list[Callable[[], None]] = []
        self._name = settings.name or name or None
        self._opening: asyncio.Future[Exception] | None = None
        self._failures = 0
        self._last_error: Exception | None = None
        self._closing = False
        self._connected = asyncio.Event()
        self._logged_at: dict[str, float] = {}

    @property
    def connected(self) -> bool:
        """Whether the server is there just now."""
        return self.client is not None and self.client.is_connected

    @property
    def closed(self) -> bool:
        """Whether it was closed, or gave up reconnecting."""
        return self.client is None or self.client.is_closed

    def live(self) -> MendedClient:
        """Return the client.

        Raises:
            ConnectionError: not open, or closed.
        """
        client = self.client
        if client is None or client.is_closed:
            raise ConnectionError(f"{self.label}: the connection is closed; open it first")
        return client

    async def open(self) -> None:
        """Connect, trying each server once.

        Raises:
            CredentialsRefused: a server refused the credentials.
            ConnectionError: no server answered within `connect_timeout_s` seconds.
            ConfigurationError: a file of the settings cannot be read.
        """
        if self.client is not None and not self.client.is_closed:
            return
        servers = self.settings.url.split(",")
        options = self._options(len(servers))
        self._failures, self._closing, self._last_error = 0, False, None
        direct = self.settings.data_path == "direct"
        self.client = client = MendedClient(direct=direct, pending_bytes=self.settings.pending_bytes)
        self._opening = asyncio.get_running_loop().create_future()
        connecting = asyncio.create_task(client.connect(servers=servers, **options))
        try:
            either: set[asyncio.Future[Any]] = {connecting, self._opening}
            await asyncio.wait(either, timeout=self.settings.connect_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
                self._connected.set()
                return
            error = connecting.exception() if connecting.done() else self._last_error
            raise self._refused(error) from error
        finally:
            self._opening.cancel()
            self._opening = None
            if not self._connected.is_set():
                connecting.cancel()
                await asyncio.wait({connecting}, timeout=1)
                await self._close_client()

    def _refused(self, error: BaseException | None) -> Exception:
        url = self.settings.url
        if isinstance(error, ModuleNotFoundError):
            return ConfigurationError(f"{self.label}: nkeys are not installed; pip install 'cliffracer-nats[nkeys]'")
        text = str(error).lower()
        if isinstance(error, errors.Error) and any(word in text for word in _DENIED):
            return CredentialsRefused(
                f"{self.label}: {url!r} refused the credentials ({text.removeprefix('nats: ')}); "
                "check user, password, token, nkey_seed or creds in the settings 'nats'"
            )
        if isinstance(error, ssl.SSLError | errors.SecureConnWantedError):
            reason = getattr(error, "reason", None) or "the server does not offer it"
            return ConnectionError(
                f"{self.label}: no TLS with {url!r} ({reason}); "
                "check tls_ca, tls_cert, tls_key and tls_hostname in the settings 'nats'"
            )
        if error is None or isinstance(error, OSError | errors.Error | asyncio.TimeoutError):
            return ConnectionError(
                f"{self.label}: cannot reach {url!r} within {self.settings.connect_timeout_s:g} s; "
                "start one with 'cliffracer dev' or set CLIFFRACER_TRANSPORT"
            )
        return ConfigurationError(f"{self.label}: cannot connect to {url!r} ({type(error).__name__}: {error})")

    def _options(self, servers: int) -> dict[str, Any]:
        s = self.settings
        options: dict[str, Any] = {
            "name": self._name,
            "user": s.user,
            "password": s.password,
            "token": s.token,
            "connect_timeout": max(s.connect_timeout_s / servers, 0.5),
            "reconnect_time_wait": s.reconnect_wait_s,
            "max_reconnect_attempts": s.max_reconnect_attempts,
            "reconnect_to_server_handler": self._next_server,
            "ping_interval": s.ping_interval_s,
            "pending_size": s.buffer_bytes,
            "flush_timeout": s.flush_timeout_s,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "closed_cb": self._on_closed,
            "tls_handshake_first": s.tls_first,
        }
        if s.nkey_seed:
            where = "nkeys_seed_str" if s.nkey_seed.startswith("S") and "/" not in s.nkey_seed else "nkeys_seed"
            options[where] = s.nkey_seed
        if s.creds:
            options["user_credentials"] = s.creds
        for field in ("creds", "tls_ca", "tls_cert", "tls_key"):
            path = getattr(s, field)
            if path and not Path(path).is_file():
                raise ConfigurationError(f"setting 'nats.{field}': no file at {path!r}; correct the path")
        if s.tls_ca or s.tls_cert or "tls://" in s.url:
            options["tls"] = self._tls()
            options["tls_hostname"] = s.tls_hostname
        return options

    def _tls(self) -> ssl.SSLContext:
        s = self.settings
        try:
            context = ssl.create_default_context(cafile=s.tls_ca)
            if s.tls_cert:
                context.load_cert_chain(s.tls_cert, s.tls_key, s.tls_key_password)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(
                f"setting 'nats.tls_*': certificates cannot be loaded ({error.strerror}); check the files"
            ) from error
        return context

    def _next_server(self, servers: list[Server], info: dict[str, Any]) -> tuple[Server | None, float]:
        """Choose the server tried least, after a pause that grows with each round, with jitter."""
        server = min(servers, key=lambda server: server.reconnects)
        wait = min(self.settings.reconnect_wait_s * 2 ** min(server.reconnects, 16), self.settings.reconnect_max_wait_s)
        return server, wait * random.uniform(0.5, 1.0)

    async def _on_error(self, error: Exception) -> None:
        if self._opening is not None:
            self._last_error = error
            self._failures += 1
            denied = any(word in str(error).lower() for word in _DENIED)
            if not self._opening.done() and (denied or self._failures >= self.settings.url.count(",") + 1):
                self._opening.set_result(error)
        elif isinstance(error, errors.SlowConsumerError):
            self.dropped += 1
            self._log_sometimes(f"dropped a message on {error.subject!r}: too many are unhandled; {{}} so far", "slow")
        elif not self._closing:
            self._log_sometimes(f"{type(error).__name__}: {error}", type(error).__name__ + str(error))

    def _log_sometimes(self, text: str, key: str) -> None:
        """Log at once, and then each half minute: an outage with backoff must not fill the log, nor be silent."""
        now = time.monotonic()
        if now - self._logged_at.get(key, -_LOG_EVERY_S) >= _LOG_EVERY_S:
            if len(self._logged_at) > 100:
                self._logged_at.clear()
            self._logged_at[key] = now
            _log.warning("%s: %s", self.label, text.replace("{}", str(self.dropped)))

    async def _on_disconnected(self) -> None:
        self._connected.clear()
        if not self._closing and self._opening is None:
            _log.warning("%s: lost the connection to %r; reconnecting", self.label, self.settings.url)

    async def _on_reconnected(self) -> None:
        self._connected.set()
        self._logged_at.clear()
        _log.info("%s: connected to %r again", self.label, self.settings.url)
        for callback in tuple(self.on_reconnect):
            callback()

    async def _on_closed(self) -> None:
        if not self._closing and self._opening is None:
            _log.error("%s: gave up reconnecting to %r; see max_reconnect_attempts", self.label, self.settings.url)

    async def flush(self, timeout_s: float | None = None) -> None:
        """Return when the server has taken all that was written before; waits for a reconnect.

        Raises:
            ConnectionError: it has not within `timeout_s` (the settings' `flush_timeout_s`) seconds.
        """
        limit = self.settings.flush_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit):
                while True:
                    client = self.live()
                    await self._connected.wait()
                    try:
                        await client.flush(1)  # a reconnect drops its PONG, so ask anew
                    except errors.FlushTimeoutError:
                        continue
                    if self._connected.is_set():
                        return
        except builtins.TimeoutError:
            raise ConnectionError(
                f"{self.label}: {self.settings.url!r} has not confirmed within {limit:g} s; is the server up"
            ) from None
        except (errors.Error, OSError) as error:
            raise ConnectionError(f"{self.label}: cannot flush to {self.settings.url!r} ({error})") from error

    async def close(self) -> None:
        """Write what is buffered and disconnect; safe to call twice."""
        client = self.client
        if client is not None and not client.is_closed and client.is_connected:
            try:
                await self.flush(min(2.0, self.settings.flush_timeout_s))
            except ConnectionError as error:
                _log.warning("%s: closed without confirmation of what was sent last (%s)", self.label, error)
        await self._close_client()

    async def _close_client(self) -> None:
        self._closing = True
        self._connected.clear()
        if self.client is None:
            return
        try:
            async with asyncio.timeout(2):
                await self.client.close()
        except (errors.Error, OSError, RuntimeError) as error:  # the socket may be gone already
            _log.debug("%s: closing: %s", self.label, error)
