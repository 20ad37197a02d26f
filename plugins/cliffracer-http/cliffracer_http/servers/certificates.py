"""TLS contexts whose certificates follow the files on disk."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Sequence

from cliffracer_core.errors import ConfigurationError
from cliffracer_http.settings import HttpSettings

__all__ = ["Certificates", "check_certificates"]

logger = logging.getLogger("cliffracer.http")

LOOK_EVERY_S = 1.0


def check_certificates(settings: HttpSettings) -> None:
    """Make sure that the certificate and its key are there and belong together.

    Raises:
        ConfigurationError: they do not, or only one is set.
    """
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigurationError("http.tls_cert and http.tls_key belong together; set both or neither")
    if settings.tls_cert is not None:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)


def _load(context: ssl.SSLContext, settings: HttpSettings) -> None:
    assert settings.tls_cert is not None, "called where there is one"
    try:
        # without a callback, a key with a password would ask for it on the terminal
        context.load_cert_chain(settings.tls_cert, settings.tls_key, lambda: settings.tls_key_password or "")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"http.tls_cert {settings.tls_cert!r} and http.tls_key {settings.tls_key!r} cannot be used: {error}; give "
            "a PEM certificate chain and its key, and http.tls_key_password where the key has one"
        ) from error


class Certificates:
    """A TLS context of a server.

    Args:
        settings: name the files.
        protocols: offered by ALPN, the preferred one first.

    Raises:
        ConfigurationError: the files cannot be used.
    """

    def __init__(self, settings: HttpSettings, protocols: Sequence[str]) -> None:
        self._settings = settings
        self.context: ssl.SSLContext | None = None
        """None where the server speaks no TLS."""
        check_certificates(settings)
        if settings.tls_cert is None:
            return
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION  # RFC 9113, 9.2.1
        self.context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # RFC 9113, appendix A forbids the others
        self.context.set_alpn_protocols(list(protocols))
        _load(self.context, settings)
        self._seen = self._stamp()
        self._look_at = time.monotonic() + LOOK_EVERY_S

    def refresh(self) -> None:
        """Take what is on disk where that has changed; connections that are open keep what they have."""
        if self.context is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_EVERY_S
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            check_certificates(self._settings)  # first elsewhere: half a change must not spoil what is in use
            _load(self.context, self._settings)
        except ConfigurationError as error:
            logger.error("the certificate has changed and is not taken: %s", error)
        else:
            logger.info("the certificate has changed; new connections get %r", self._settings.tls_cert)

    def _stamp(self) -> tuple[tuple[int, int, int], ...] | None:
        try:
            found = [os.stat(each or "") for each in (self._settings.tls_cert, self._settings.tls_key)]
        except OSError:
            return None  # in the midst of being replaced
        return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in found)
