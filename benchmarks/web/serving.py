"""`serve`: one contestant behind one server, in a process of its own on a core of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.rows import OURS
from benchmarks.worker import Station, private_bytes

from .contestants import application
from .contestants.cliffracer_app import make_service

__all__ = ["SERVERS", "serve"]

SERVERS = ("uvicorn", "hypercorn")


async def serve(station: Station, *, server: str, variant: str = "plain", core: int | None = None) -> None:
    """Serve, and say at each word how much of it this process has used: `cpu_s`, or `private` bytes."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    async with _listening(station.contestant, server, variant) as port:
        station.say(port=port, pid=os.getpid())
        while word := await station.hear():
            station.say(used=time.process_time() if word == "cpu_s" else private_bytes())


@contextlib.asynccontextmanager
async def _listening(contestant: str, server: str, variant: str) -> AsyncIterator[int]:
    if contestant == OURS:
        async with make_service(server, variant) as service:
            yield int(service.http.url.rpartition(":")[2])
        return
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    app = application(contestant)
    run, stop = _uvicorn(app, listener) if server == "uvicorn" else _hypercorn(app, listener)
    task = asyncio.create_task(run)
    try:
        yield listener.getsockname()[1]
    finally:
        stop()
        await task


def _uvicorn(app: Any, listener: socket.socket) -> tuple[Any, Any]:
    import uvicorn

    config = uvicorn.Config(
        app, http="httptools", log_config=None, access_log=False, server_header=False, proxy_headers=False
    )  # fmt: skip
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    return server.serve(sockets=[listener]), stop


def _hypercorn(app: Any, listener: socket.socket) -> tuple[Any, Any]:
    from hypercorn.asyncio import serve as run
    from hypercorn.config import Config

    config, ended = Config(), asyncio.Event()
    config.bind = [f"fd://{listener.fileno()}"]
    config.include_server_header = False
    config.graceful_timeout = 1.0
    return run(app, config, shutdown_trigger=ended.wait), ended.set
