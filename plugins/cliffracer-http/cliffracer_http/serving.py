"""Listen with the server that is configured, in the running event loop, without signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import socket
import ssl
import stat
from typing import Any, Protocol

from cliffracer_core.errors import ConfigurationError, StartupError

from .settings import HttpSettings

__all__ = ["HypercornServing", "Serving", "UvicornServing", "serving_for"]

logger = logging.getLogger("cliffracer.http")


class Serving(Protocol):
    """A server of one ASGI application on one socket."""

    async def start(self, app: Any, listener: socket.socket) -> None:
        """Accept on a bound socket; connections are accepted when this returns."""

    async def stop(self, grace_s: float) -> None:
        """Accept no more, close what is idle, finish what runs within `grace_s` seconds, then cut it."""


def serving_for(settings: HttpSettings) -> Serving:
    """Return the configured server, unstarted.

    Raises:
        ConfigurationError: it is not installed, or its certificate cannot be read.
    """
    has_uvicorn = importlib.util.find_spec("uvicorn") is not None
    if settings.server == "uvicorn" and not has_uvicorn:
        raise ConfigurationError("http.server is 'uvicorn', which is missing; install cliffracer-http[uvicorn]")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigurationError("http.tls_cert and http.tls_key belong together; set both or neither")
    uvicorn = settings.server == "uvicorn" or (settings.server == "auto" and has_uvicorn)
    return UvicornServing(settings) if uvicorn else HypercornServing(settings)


def bind(settings: HttpSettings) -> tuple[socket.socket, str]:
    """Bind the configured address, and return the socket and its URL.

    Raises:
        StartupError: it is taken, or not this machine's.
    """
    path = settings.unix_socket
    family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    where = path or f"{settings.host}:{settings.port}"
    try:
        if path is None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((settings.host, settings.port))
        else:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(os.stat(path).st_mode):
                    os.unlink(path)  # left behind by a process that was killed
            listener.bind(path)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        hint = "http.unix_socket" if path else "http.host or http.port"
        raise StartupError(f"cannot listen on {where}: {error.strerror or error}; set {hint}") from error
    if path is not None:
        return listener, f"unix:{path}"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return listener, f"{'https' if settings.tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"


class HypercornServing:
    """Hypercorn: HTTP/1.1 and HTTP/2.

    Its own `serve` waits without bound on Python 3.12 for connections that are open; this one does not.
    """

    def __init__(self, settings: HttpSettings) -> None:
        from hypercorn.asyncio.tcp_server import TCPServer
        from hypercorn.asyncio.worker_context import WorkerContext
        from hypercorn.config import Config
        from hypercorn.utils import wrap_app

        config = self._config = Config()
        config.certfile, config.keyfile = settings.tls_cert, settings.tls_key
        config.keyfile_password = settings.tls_key_password
        config.keep_alive_timeout = settings.keep_alive_s
        config.include_server_header = False
        config.errorlog = logger
        self._context = WorkerContext(None)
        self._make, self._wrap = TCPServer, wrap_app
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, app: Any, listener: socket.socket) -> None:
        """Accept; see `Serving`."""
        loop = asyncio.get_running_loop()
        wrapped = self._wrap(app, self._config.wsgi_max_body_size, "asgi")

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await self._make(wrapped, loop, self._config, self._context, {}, reader, writer)

        try:
            secure = self._config.create_ssl_context() if self._config.ssl_enabled else None
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"http.tls_cert or http.tls_key cannot be read: {error}") from error
        self._server = await asyncio.start_server(on_connection, sock=listener, ssl=secure)

    async def stop(self, grace_s: float) -> None:
        """Stop; see `Serving`."""
        if self._server is None:
            return
        self._server.close()
        await self._context.terminated.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        cut = list(self._tasks)
        for task in cut:
            task.cancel()
        if cut:
            logger.warning("%d connections were cut at the end of the grace time", len(cut))
            await asyncio.wait(cut, timeout=1.0)


class UvicornServing:
    """uvicorn: HTTP/1.1, fast."""

    def __init__(self, settings: HttpSettings) -> None:
        import uvicorn

        self._settings = settings
        self._uvicorn = uvicorn
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, app: Any, listener: socket.socket) -> None:
        """Accept; see `Serving`."""
        settings = self._settings
        config = self._uvicorn.Config(
            app, interface="asgi3", lifespan="off", log_config=None, access_log=False, server_header=False,
            timeout_keep_alive=int(settings.keep_alive_s), ws="websockets-sansio", ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key, ssl_keyfile_password=settings.tls_key_password,
        )  # fmt: skip
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"http.tls_cert or http.tls_key cannot be read: {error}") from error
        server = self._server = self._uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]  # ours are the kernel's
        self._task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            if self._task.done():
                await self._task
                raise StartupError("uvicorn ended while it started; its log says why")
            await asyncio.sleep(0.005)

    async def stop(self, grace_s: float) -> None:
        """Stop; see `Serving`."""
        if self._server is None or self._task is None:
            return
        self._server.config.timeout_graceful_shutdown = grace_s  # type: ignore[assignment]  # passed on to wait_for
        self._server.should_exit = True
        await self._task
