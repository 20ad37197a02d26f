"""The socket that a server listens on."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from cliffracer_core.errors import ConfigurationError, StartupError
from cliffracer_http.settings import HttpSettings

__all__ = ["bind"]


def bind(settings: HttpSettings) -> tuple[socket.socket, str]:
    """Bind the configured address, and return the socket and its URL.

    Raises:
        ConfigurationError: processes shall share a port, and it is 0 or a Unix socket.
        StartupError: it is taken, or not this machine's.
    """
    path = settings.unix_socket
    if settings.reuse_port and (path is not None or settings.port == 0):
        raise ConfigurationError(
            "several processes share one port, and port 0 or a Unix socket would be each one's own; set http.port, "
            "or run one process"
        )
    return _bind_unix(path) if path is not None else _bind_port(settings)


def _bind_port(settings: HttpSettings) -> tuple[socket.socket, str]:
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((settings.host, settings.port))
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise StartupError(
            f"cannot listen on {where}: {error.strerror or error}; set http.host or http.port"
        ) from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return listener, f"{'https' if settings.tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"


def _bind_unix(path: str) -> tuple[socket.socket, str]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left_behind(path):
            os.unlink(path)
        listener.bind(path)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise StartupError(
            f"cannot listen on Unix socket {path!r}: {error.strerror or error}; set http.unix_socket"
        ) from error
    return listener, f"unix:{path}"


def _is_left_behind(path: str) -> bool:
    """Tell whether a socket file is there that nobody listens on, as a killed process leaves it."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    return True
    return False
