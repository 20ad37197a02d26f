"""TLS with certificates that may be renewed while the server runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Callable, Sequence

from cliffracer_core.errors import ConfigurationError

from .interface import ServerSettings

__all__ = ["Certificates"]

logger = logging.getLogger("cliffracer.http")
Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """The TLS context of a server; new handshakes use what the files last held.

    Args:
        settings: with `tls_cert` and `tls_key`.
        alpn: protocols to offer, the preferred one first.

    Raises:
        ConfigurationError: a file cannot be read, or key and certificate are no pair.
    """

    def __init__(self, settings: ServerSettings, alpn: Sequence[str]) -> None:
        check(settings)
        self._settings = settings
        self._stamp = self._look()
        self.context = self._fresh()
        self.context.set_alpn_protocols(list(alpn))
        self._task: asyncio.Task[None] | None = None
        self.renewed: list[Callable[[], None]] = []
        """Called after new files were taken; one that raises ConfigurationError keeps what it had."""

    def watch(self) -> None:
        """Look at the files now and then until `close`."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def reload(self) -> None:
        """Take what the files hold now; raises ConfigurationError, and keeps the old, where that is no pair."""
        self._fresh()  # on the live context, a new certificate beside the old key would break every handshake
        self._load(self.context)
        for each in self.renewed:
            each()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tls_reload_s)
            with contextlib.suppress(ConfigurationError):  # missing for a moment, while it is replaced
                stamp = self._look()
                if stamp != self._stamp:
                    self._take(stamp)

    def _take(self, stamp: Stamp) -> None:
        try:
            self.reload()
        except ConfigurationError as error:
            logger.warning("the renewed certificate was not taken, the old one is still in use: %s", error)
        else:
            logger.info("the certificate was renewed")
        self._stamp = stamp

    def _fresh(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        settings = self._settings
        password = settings.tls_key_password
        try:
            context.load_cert_chain(
                str(settings.tls_cert), settings.tls_key, password=lambda: password or ""  # "" asks no terminal
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise _unreadable(settings, error) from error

    def _look(self) -> Stamp:
        paths = (str(self._settings.tls_cert), str(self._settings.tls_key))
        try:
            found = [os.stat(path) for path in paths]
        except OSError as error:
            raise _unreadable(self._settings, error) from error
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)


def check(settings: ServerSettings) -> None:
    """Raise ConfigurationError where only one of certificate and key is set."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigurationError("http.tls_cert and http.tls_key belong together; set both or neither")


def _unreadable(settings: ServerSettings, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"http.tls_cert {settings.tls_cert!r} and http.tls_key {settings.tls_key!r} cannot be used: "
        f"{getattr(error, 'strerror', None) or error}; give a PEM chain and its key, readable by this process"
    )
