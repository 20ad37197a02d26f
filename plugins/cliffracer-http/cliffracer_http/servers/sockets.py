"""Listening sockets, bound before a server has them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat

from cliffracer_core.errors import StartupError

from .interface import ServerSettings

__all__ = ["listen", "listen_both", "settle", "unlink", "urls_of"]

_REMEDIES = {
    errno.EADDRINUSE: "another process listens there; stop it, or set {what} (port 0 takes a free one)",
    errno.EADDRNOTAVAIL: "the address is not this machine's; set {what}",
    errno.EACCES: "this user may not; set {what} (ports below 1024 are the system's)",
    errno.ENOENT: "its folder is missing; make it, or set {what}",
}


def listen(settings: ServerSettings) -> socket.socket:
    """Bind and listen.

    Raises:
        StartupError: the address is taken, not this machine's, or not allowed; a retry may help where it is taken.
    """
    path = settings.unix_socket
    where = repr(path) if path else f"{settings.host}:{settings.port}"
    try:
        return _bind_unix(path, settings.backlog) if path else _bind_tcp(settings)
    except (OSError, UnicodeError, OverflowError) as error:
        what = "http.unix_socket" if path else "http.host or http.port"
        number = getattr(error, "errno", None)
        remedy = _REMEDIES.get(number or 0, f"{getattr(error, 'strerror', None) or error}; set {{what}}")
        raise StartupError(f"cannot listen on {where}: {remedy.format(what=what)}") from error


def listen_both(settings: ServerSettings) -> tuple[socket.socket, socket.socket]:
    """Bind TCP, and UDP at the same port; see `listen`."""
    left = 1 if settings.port else 10  # a port that is free for one may be taken for the other
    while True:
        left -= 1
        found = listen(settings)
        try:
            return found, _bind_udp(found)
        except OSError as error:
            host, port = found.getsockname()[:2]
            found.close()
            if not left or error.errno != errno.EADDRINUSE:
                remedy = _REMEDIES.get(error.errno or 0, f"{error.strerror}; set {{what}}")
                raise StartupError(
                    f"cannot listen on {host}:{port} over UDP, for HTTP/3: {remedy.format(what='http.port')}"
                ) from error


def _bind_udp(listener: socket.socket) -> socket.socket:
    found = socket.socket(listener.family, socket.SOCK_DGRAM)
    try:
        found.bind(listener.getsockname())
    except BaseException:
        found.close()
        raise
    found.setblocking(False)
    return found


def _bind_tcp(settings: ServerSettings) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    found = socket.socket(family, kind, proto)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.reuse_port:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(address)
        found.listen(settings.backlog)
    except BaseException:
        found.close()
        raise
    found.setblocking(False)
    return found


def _bind_unix(path: str, backlog: int) -> socket.socket:
    _remove_abandoned(path)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.bind(path)
        found.listen(backlog)
    except BaseException:
        found.close()
        raise
    found.setblocking(False)
    return found


def _remove_abandoned(path: str) -> None:
    """Unlink a socket on which nobody listens, such as a killed process left behind."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def urls_of(listener: socket.socket, settings: ServerSettings) -> list[str]:
    """Return the URLs of a listening socket, with its real port."""
    if settings.unix_socket:
        return [f"unix:{settings.unix_socket}"]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "https" if settings.tls_cert else "http"
    return [f"{scheme}://{host}:{listener.getsockname()[1]}"]


def unlink(settings: ServerSettings) -> None:
    """Remove the file of a unix socket that was listened on."""
    if settings.unix_socket:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(settings.unix_socket)


async def settle() -> None:
    """Let the loop take what has arrived by now: connections that wait to be accepted, requests that are sent."""
    for _ in range(5):
        await asyncio.sleep(0)
