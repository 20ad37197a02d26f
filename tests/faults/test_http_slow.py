"""Clients that are slow on purpose, by Debian's `slowhttptest`: with their headers, their bodies and their reading."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self

import httpx
import pytest
from cliffracer_http.servers import FASTEST_FIRST, make_server

from cliffracer_core.testing import eventually

from .forms import Form
from .memory import MIB, needs_proc, private_bytes, sockets
from .processes import Worker

PATIENCE_S = 1.0
"""What the service grants: for a head, for a part of a body, for reading."""
GIVEN_UP_WITHIN_S = 20.0
"""By when all connections that are given up must be gone, generously."""
OTHERS_WITHIN_S = 5.0
"""In which everybody else is answered, generously."""
GROWTH_EACH = MIB // 2
"""Private bytes that a process may grow by for a client that reads nothing; what lies in its buffers."""
GROWTH = 24 * MIB
"""Private bytes that it may grow by besides, for all that is slow together."""
PROBES = 3
"""Connections of `slowhttptest` that look whether the service answers; they ask for the same, and may not read it."""
PAGES = 400
"""Of 64 KiB, which a slow reader asks for."""


def attacks(url: str, count: int) -> dict[str, list[str]]:
    """Return the arguments of each attack."""
    all = ["-c", str(count), "-r", "200", "-i", "1", "-l", "60", "-p", "5"]
    return {
        "headers": ["-H", *all, "-u", f"{url}/users/7"],
        "body": ["-B", *all, "-x", "10", "-s", "8192", "-f", "application/json", "-u", f"{url}/names"],
        "read": ["-X", *all, "-n", "1", "-z", "10", "-w", "10", "-y", "20", "-u", f"{url}/pages/{PAGES}"],
    }


class Other:
    """A client that means well, and asks on and on, on a connection it keeps."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.longest_s = 0.0
        self.answered = 0

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask until the block ends; a wrong answer, or none in time, fails it."""
        task = asyncio.create_task(self._ask())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task  # what went wrong there explains what did here

    async def _ask(self) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=OTHERS_WITHIN_S) as client:
            while True:
                began = time.monotonic()
                assert (await client.get("/users/7")).json() == "7"
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                self.answered += 1
                await asyncio.sleep(0.01)


class Attack:
    """All kinds of slow clients at once, until the block ends."""

    def __init__(self, url: str, count: int, folder: Path, name: str) -> None:
        self._arguments = attacks(url, count)
        self._outputs = {kind: folder / f"{name}-{kind}.out" for kind in self._arguments}
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> Self:
        for kind, arguments in self._arguments.items():
            with self._outputs[kind].open("wb") as out:
                self._running[kind] = await asyncio.create_subprocess_exec(
                    "slowhttptest", *arguments, stdout=out, stderr=out
                )
        return self

    def is_over(self, kind: str) -> bool:
        """Tell whether the service has closed all connections of a kind; an AssertionError where it ended otherwise."""
        if self._running[kind].returncode is None:
            return False
        said = self._outputs[kind].read_text("utf-8", "replace")
        assert "No open connections left" in said, said[-500:]
        return True

    async def __aexit__(self, *error: object) -> None:
        for each in self._running.values():
            if each.returncode is None:
                each.kill()
            await each.wait()


async def attacked(server: str, port: int, folder: Path, count: int) -> str:
    """Attack a service on one server; return the figures."""
    capabilities = make_server(server).capabilities
    assert capabilities.header_timeout
    environment = {
        "CLIFFRACER_TRANSPORT": "memory://", "CLIFFRACER_HTTP__SERVER": server, "CLIFFRACER_SHUTDOWN_GRACE_S": "2",
        "CLIFFRACER_HTTP__PORT": str(port), "CLIFFRACER_HTTP__HEADER_TIMEOUT_S": f"{PATIENCE_S}",
        "CLIFFRACER_HTTP__BODY_TIMEOUT_S": f"{PATIENCE_S}", "CLIFFRACER_HTTP__WRITE_TIMEOUT_S": f"{PATIENCE_S}",
    }  # fmt: skip
    worker = await Worker.start("target", folder / f"{server}.err", environment)
    other = Other(url := f"http://127.0.0.1:{port}")
    stay = 0 if capabilities.write_timeout else count + PROBES
    memory = most = 0
    try:
        await worker.until(ready=True)
        own, before = sockets(worker.pid) + 1, private_bytes(worker.pid)
        began = time.monotonic()
        async with Attack(url, count, folder, server) as attack:

            def given_up() -> bool:
                nonlocal memory, most
                memory, most = max(memory, private_bytes(worker.pid)), max(most, sockets(worker.pid))
                return attack.is_over("headers") and attack.is_over("body") and sockets(worker.pid) <= own + stay

            async with other.asking():
                await eventually(given_up, GIVEN_UP_WITHIN_S)
                given_up_s = time.monotonic() - began
                answered = other.answered
                await eventually(lambda: other.answered > answered + 10)
            worker.terminate()
            assert await worker.ended() == 0
    finally:
        await worker.close()
    assert most > own + count, "there was no attack"
    growth = memory - before
    assert growth < GROWTH + count * GROWTH_EACH, f"{server}: {growth / MIB:.1f} MiB"
    assert other.longest_s < OTHERS_WITHIN_S
    return (
        f"{server}: {3 * count} slow clients, {count if stay else 0} of them kept, the others gone after "
        f"{given_up_s:.1f} s; {other.answered} requests of another one answered, the slowest in "
        f"{other.longest_s * 1000:.0f} ms; {growth / MIB:.1f} MiB"
    )


@needs_proc
async def test_others_are_served_when_clients_are_slow_on_purpose(
    unused_tcp_port_factory: Callable[[], int], tmp_path: Path, form: Form, report: Callable[[str], None]
) -> None:
    """Slow heads, bodies and readers are given up where the server promises it; others are served meanwhile."""
    if shutil.which("slowhttptest") is None:
        (pytest.fail if os.environ.get("REQUIRE_SLOWHTTPTEST") else pytest.skip)("slowhttptest is not installed")
    async with asyncio.TaskGroup() as group:  # all servers at once: most of the time goes by waiting
        tasks = [
            group.create_task(attacked(each, unused_tcp_port_factory(), tmp_path, form.slow_clients))
            for each in FASTEST_FIRST
        ]
    for task in tasks:
        report(task.result())
